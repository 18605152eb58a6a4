// Tensors: raw little-endian elements in C order, whole or in chunks.

import { crc32 } from "node:zlib";

import type { Tensor, Tensor__Output } from "./generated/backwire_api/v1/Tensor";
import type { TensorChunk, TensorChunk__Output } from "./generated/backwire_api/v1/TensorChunk";

const CHUNK_BYTES = 2 ** 21; // what the contract asks senders to keep to

/** A float32 tensor of these elements, which are not copied. */
export function float32(elements: Float32Array, shape: number[]): Tensor {
  const data = Buffer.from(elements.buffer, elements.byteOffset, elements.byteLength);
  return { dtype: "DATA_TYPE_FLOAT32", shape, data };
}

/** An int64 vector, as labels are. */
export function int64(elements: number[]): Tensor {
  const data = Buffer.alloc(8 * elements.length);
  elements.forEach((element, index) => data.writeBigInt64LE(BigInt(element), 8 * index));
  return { dtype: "DATA_TYPE_INT64", shape: [elements.length], data };
}

/** The elements of a float32 tensor; a copy, since those of a message need not be aligned. */
export function elementsOf(tensor: Tensor__Output): Float32Array {
  if (tensor.dtype !== "DATA_TYPE_FLOAT32") {
    throw new TypeError(`the tensor is ${tensor.dtype}; read it as that`);
  }
  return new Float32Array(new Uint8Array(tensor.data).buffer);
}

/** The chunks of a tensor, at least one, the last with the checksum of the whole. */
export function* chunksOf(name: string, tensor: Tensor): Generator<TensorChunk> {
  const whole = tensor.data as Buffer;
  for (let offset = 0; offset === 0 || offset < whole.length; offset += CHUNK_BYTES) {
    const data = whole.subarray(offset, offset + CHUNK_BYTES);
    const last = offset + data.length === whole.length;
    const { dtype, shape } = tensor;
    yield { name, dtype, shape, offset, data, ...(last ? { crc32: crc32(whole) } : {}) };
  }
}

/** Puts chunks together, and checks that nothing is missing or damaged. */
export class Assembler {
  readonly tensors = new Map<string, Tensor__Output>();
  #parts: Buffer[] = [];
  #filled = 0;

  add(chunk: TensorChunk__Output): void {
    if (chunk.offset !== this.#filled) {
      throw new Error(`${chunk.name}: byte ${chunk.offset} came where ${this.#filled} was due; ask again`);
    }
    this.#parts.push(chunk.data);
    this.#filled += chunk.data.length;
    if (chunk.crc32 === undefined) {
      return;
    }
    const data = Buffer.concat(this.#parts);
    if (crc32(data) !== chunk.crc32) {
      throw new Error(`${chunk.name}: the checksum is wrong; ask again`);
    }
    this.tensors.set(chunk.name, { dtype: chunk.dtype, shape: chunk.shape, data });
    this.#parts = [];
    this.#filled = 0;
  }

  /** The tensors by name, once the stream has ended. */
  finish(): Map<string, Tensor__Output> {
    if (this.#parts.length > 0) {
      throw new Error(`the stream ended at byte ${this.#filled} of a tensor; ask again`);
    }
    return this.tensors;
  }
}
