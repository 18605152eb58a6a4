// What a failed call says: a reason for programs, and a message that ends with what to do.

import { type ServiceError, status } from "@grpc/grpc-js";
import protobuf from "protobufjs";

// The parts of google.rpc that errors carry, as far as they are read here.
const { root } = protobuf.parse(`
  syntax = "proto3";
  message Status { int32 code = 1; string message = 2; repeated Detail details = 3; }
  message Detail { string type_url = 1; bytes value = 2; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
  message RetryInfo { Delay retry_delay = 1; }
  message Delay { int64 seconds = 1; int32 nanos = 2; }
`);

/** A call that failed, and so changed nothing. */
export class BackwireError extends Error {
  constructor(
    message: string,
    /** The canonical status code. */
    readonly code: status,
    /** Why, such as `SHAPE_MISMATCH`; empty where no server said it. */
    readonly reason: string,
    /** Further facts, such as the limit that was hit. */
    readonly facts: Readonly<Record<string, string>>,
    /** In how many milliseconds the server asks to be called again, where it does. */
    readonly retryAfter: number | undefined,
  ) {
    super(message);
    this.name = "BackwireError";
  }

  /** Whether the same call, under the same request_id, may do better later. */
  get passing(): boolean {
    return this.code === status.UNAVAILABLE || this.retryAfter !== undefined;
  }
}

/** Reads the details out of gRPC's error. */
export function backwireError(error: ServiceError): BackwireError {
  let reason = "";
  let facts: Record<string, string> = {};
  let retryAfter: number | undefined;
  for (const bytes of error.metadata?.get("grpc-status-details-bin") ?? []) {
    for (const { typeUrl: type, value } of decoded("Status", bytes as Buffer).details ?? []) {
      if (type.endsWith("/google.rpc.ErrorInfo")) {
        ({ reason, metadata: facts = {} } = decoded("ErrorInfo", value));
      } else if (type.endsWith("/google.rpc.RetryInfo")) {
        const { seconds = 0, nanos = 0 } = decoded("RetryInfo", value).retryDelay ?? {};
        retryAfter = seconds * 1e3 + nanos / 1e6;
      }
    }
  }
  return new BackwireError(error.details || error.message, error.code, reason, facts, retryAfter);
}

function decoded(name: string, bytes: Uint8Array): Record<string, any> {
  const type = root.lookupType(name);
  return type.toObject(type.decode(bytes), { longs: Number });
}
