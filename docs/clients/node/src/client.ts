// The calls: each with a deadline, and repeated under the same request_id while the server cannot be reached.

import { randomUUID } from "node:crypto";
import { once } from "node:events";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

import { BackwireError, backwireError } from "./errors";
import type { CreateSessionResponse__Output } from "./generated/backwire_api/v1/CreateSessionResponse";
import type { ForwardResponse__Output } from "./generated/backwire_api/v1/ForwardResponse";
import type { GetParametersResponse__Output } from "./generated/backwire_api/v1/GetParametersResponse";
import type { GetSessionResponse__Output } from "./generated/backwire_api/v1/GetSessionResponse";
import type { GradientServiceClient } from "./generated/backwire_api/v1/GradientService";
import type { Graph } from "./generated/backwire_api/v1/Graph";
import type { Optimizer } from "./generated/backwire_api/v1/Optimizer";
import type { Session__Output } from "./generated/backwire_api/v1/Session";
import type { Tensor, Tensor__Output } from "./generated/backwire_api/v1/Tensor";
import type { TrainStepResponse__Output } from "./generated/backwire_api/v1/TrainStepResponse";
import type { ProtoGrpcType } from "./generated/gradient_service";
import { Assembler, chunksOf } from "./tensors";

export type Tensors = Record<string, Tensor>;

type Callback<Response> = (error: grpc.ServiceError | null, response?: Response) => void;
type Start<Response> = (options: grpc.CallOptions, callback: Callback<Response>) => void;

const FIRST_WAIT = 50; // milliseconds
const LONGEST_WAIT = 2_000;

export interface Settings {
  /** Where the server is, as `host:port`. */
  target: string;
  /** Who calls; sent with every call. */
  token?: string;
  /** The folder that has `backwire_api/v1`. */
  protos: string;
  /** How long a call may take, repetitions included, in milliseconds. */
  timeout: number;
}

export class Client {
  /** How often a call was repeated. */
  repeated = 0;
  readonly #stub: GradientServiceClient;
  readonly #metadata = new grpc.Metadata();
  readonly #timeout: number;

  constructor({ target, token, protos, timeout }: Settings) {
    // The same options as those of `npm run generate`, which made the types.
    const options = { longs: Number, enums: String, defaults: true, oneofs: true, includeDirs: [protos] };
    const definition = loadSync(path.join("backwire_api", "v1", "gradient_service.proto"), options);
    const loaded = grpc.loadPackageDefinition(definition) as unknown as ProtoGrpcType;
    this.#stub = new loaded.backwire_api.v1.GradientService(target, grpc.credentials.createInsecure(), {
      "grpc.max_receive_message_length": -1, // outputs may be larger than gRPC's 4 MiB
      "grpc.initial_reconnect_backoff_ms": FIRST_WAIT,
      "grpc.max_reconnect_backoff_ms": LONGEST_WAIT,
    });
    this.#timeout = timeout;
    if (token) {
      this.#metadata.set("authorization", `Bearer ${token}`);
    }
  }

  async createSession(graph: Graph, optimizer: Optimizer | null, seed: number): Promise<string> {
    const request = { graph, optimizer, seed, requestId: randomUUID() };
    const made = await this.#unary<CreateSessionResponse__Output>((options, done) =>
      this.#stub.CreateSession(request, this.#metadata, options, done),
    );
    return made.session!.sessionId;
  }

  async getSession(sessionId: string): Promise<Session__Output> {
    const found = await this.#unary<GetSessionResponse__Output>((options, done) =>
      this.#stub.GetSession({ sessionId }, this.#metadata, options, done),
    );
    return found.session!;
  }

  async deleteSession(sessionId: string): Promise<void> {
    const request = { sessionId, requestId: randomUUID() };
    await this.#unary((options, done) => this.#stub.DeleteSession(request, this.#metadata, options, done));
  }

  /** Forward, Backward and Step in one. */
  trainStep(sessionId: string, inputs: Tensors): Promise<TrainStepResponse__Output> {
    const request = { sessionId, inputs, requestId: randomUUID() };
    return this.#unary((options, done) => this.#stub.TrainStep(request, this.#metadata, options, done));
  }

  /** Outputs and loss, without a pass that is kept. */
  evaluate(sessionId: string, inputs: Tensors, timeout = this.#timeout): Promise<ForwardResponse__Output> {
    const request = { sessionId, inputs, mode: "MODE_EVAL" } as const;
    return this.#unary((options, done) => this.#stub.Forward(request, this.#metadata, options, done), timeout);
  }

  /** Replaces parameters of any size. */
  setParameters(sessionId: string, tensors: Tensors): Promise<void> {
    const requestId = randomUUID();
    return this.#patiently(async (options) => {
      let write!: grpc.ClientWritableStream<object>;
      const answered = new Promise<void>((resolve, reject) => {
        write = this.#stub.SetParameters(this.#metadata, options, (error) => (error ? reject(error) : resolve()));
      });
      const sent = (async () => {
        for (const [name, tensor] of Object.entries(tensors)) {
          for (const chunk of chunksOf(name, tensor)) {
            if (!write.write({ sessionId, requestId, chunk })) {
              await once(write, "drain");
            }
          }
        }
        write.end({ sessionId, requestId, last: true });
      })();
      await Promise.race([answered, sent.then(() => answered)]);
    });
  }

  /** Reads parameters of any size. */
  getParameters(sessionId: string, names: string[]): Promise<Map<string, Tensor__Output>> {
    return this.#patiently(async (options) => {
      const assembler = new Assembler();
      const stream = this.#stub.GetParameters({ sessionId, names }, this.#metadata, options);
      for await (const { chunk } of stream as AsyncIterable<GetParametersResponse__Output>) {
        assembler.add(chunk!);
      }
      return assembler.finish();
    });
  }

  close(): void {
    this.#stub.close();
  }

  #unary<Response>(start: Start<Response>, timeout = this.#timeout): Promise<Response> {
    const once = (options: grpc.CallOptions) =>
      new Promise<Response>((resolve, reject) =>
        start(options, (error, response) => (error ? reject(error) : resolve(response!))),
      );
    return this.#patiently(once, timeout);
  }

  /** Makes a call, and makes it again after a failure that passes, until the time is up. */
  async #patiently<Result>(
    call: (options: grpc.CallOptions) => Promise<Result>,
    timeout = this.#timeout,
  ): Promise<Result> {
    const deadline = Date.now() + timeout;
    for (let wait = FIRST_WAIT; ; wait = Math.min(2 * wait, LONGEST_WAIT)) {
      try {
        return await call({ deadline });
      } catch (failure) {
        if (!isServiceError(failure)) {
          throw failure;
        }
        const error = backwireError(failure);
        const pause = Math.max(error.retryAfter ?? 0, wait * (0.5 + Math.random() / 2));
        if (!error.passing || Date.now() + pause >= deadline) {
          throw error;
        }
        this.repeated += 1;
        await sleep(pause);
      }
    }
  }
}

function isServiceError(failure: unknown): failure is grpc.ServiceError {
  return failure instanceof Error && "code" in failure && "details" in failure && !(failure instanceof BackwireError);
}
