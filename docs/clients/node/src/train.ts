// Trains a network that tells irises apart, and shows how calls fail, and how large tensors travel.

import { readFileSync } from "node:fs";
import path from "node:path";

import { status } from "@grpc/grpc-js";

import { Client, type Tensors } from "./client";
import { BackwireError } from "./errors";
import type { Graph } from "./generated/backwire_api/v1/Graph";
import type { Parameter } from "./generated/backwire_api/v1/Parameter";
import { elementsOf, float32, int64 } from "./tensors";

const FEATURES = 4;
const HIDDEN = 16;
const CLASSES = 3;
const BATCH = 20;
const EPOCHS = 60;
const SIDE = 2_048; // of the large tensor, 16 MiB

interface Flower {
  features: number[];
  species: number;
}

/** Two dense layers with Relu between, and the cross-entropy of what they tell. */
function network(): Graph {
  return {
    inputs: [
      { name: "x", dtype: "DATA_TYPE_FLOAT32", shape: [{ symbol: "batch" }, { size: FEATURES }] },
      { name: "labels", dtype: "DATA_TYPE_INT64", shape: [{ symbol: "batch" }] },
    ],
    parameters: [...layer("hidden", FEATURES, HIDDEN), ...layer("top", HIDDEN, CLASSES)],
    nodes: [
      { op: "Gemm", inputs: ["x", "hidden.weight", "hidden.bias"], outputs: ["hidden"] },
      { op: "Relu", inputs: ["hidden"], outputs: ["active"] },
      { op: "Gemm", inputs: ["active", "top.weight", "top.bias"], outputs: ["logits"] },
      { op: "SoftmaxCrossEntropyLoss", inputs: ["logits", "labels"], outputs: ["loss"] },
    ],
    outputs: { logits: "logits" },
    loss: "loss",
  };
}

function layer(name: string, inputs: number, units: number): Parameter[] {
  const dtype = "DATA_TYPE_FLOAT32";
  return [
    {
      name: `${name}.weight`,
      initializer: { dtype, shape: [inputs, units], distribution: "DISTRIBUTION_GLOROT_UNIFORM", unitAxis: 1 },
    },
    { name: `${name}.bias`, initializer: { dtype, shape: [units], distribution: "DISTRIBUTION_CONSTANT" } },
  ];
}

/** Reads the flowers: every fifth is held out, the others are trained on. All features get mean 0 and variance 1. */
function read(file: string): { train: Flower[]; test: Flower[] } {
  const rows = readFileSync(file, "utf8").trim().split("\n").slice(1);
  const flowers = rows.map((row): Flower => {
    const numbers = row.split(",").map(Number);
    return { features: numbers.slice(0, FEATURES), species: numbers[FEATURES]! };
  });
  for (let index = 0; index < FEATURES; index++) {
    const values = flowers.map((each) => each.features[index]!);
    const mean = values.reduce((sum, each) => sum + each, 0) / values.length;
    const variance = values.reduce((sum, each) => sum + (each - mean) ** 2, 0) / values.length;
    flowers.forEach((each) => (each.features[index] = (each.features[index]! - mean) / Math.sqrt(variance)));
  }
  return {
    train: flowers.filter((_, index) => index % 5 !== 0),
    test: flowers.filter((_, index) => index % 5 === 0),
  };
}

function batchOf(flowers: Flower[]): Tensors {
  const x = Float32Array.from(flowers.flatMap((each) => each.features));
  return { x: float32(x, [flowers.length, FEATURES]), labels: int64(flowers.map((each) => each.species)) };
}

/** Batches that have every species, since the flowers are sorted by it: each takes every n-th. */
function* batches(flowers: Flower[], epoch: number): Generator<Tensors> {
  const count = Math.ceil(flowers.length / BATCH);
  for (let number = 0; number < count; number++) {
    yield batchOf(flowers.filter((_, index) => (index + epoch) % count === number));
  }
}

async function train(client: Client, file: string): Promise<void> {
  const flowers = read(file);
  const session = await client.createSession(network(), { learningRate: 0.02, adam: {} }, 0);
  try {
    let loss = NaN;
    for (let epoch = 0; epoch < EPOCHS; epoch++) {
      for (const batch of batches(flowers.train, epoch)) {
        ({ loss } = await client.trainStep(session, batch));
      }
    }
    const { step } = await client.getSession(session);
    console.log(`step ${step}, loss ${loss.toFixed(4)}`);
    const share = await accuracy(client, session, flowers.test);
    console.log(`accuracy ${share.toFixed(3)} on ${flowers.test.length} flowers never trained on`);
    await fail(client, session);
  } finally {
    await client.deleteSession(session);
  }
}

async function accuracy(client: Client, session: string, flowers: Flower[]): Promise<number> {
  const { outputs } = await client.evaluate(session, batchOf(flowers));
  const logits = elementsOf(outputs["logits"]!);
  const right = flowers.filter(({ species }, row) => {
    const scores = logits.subarray(CLASSES * row, CLASSES * (row + 1));
    return scores.indexOf(Math.max(...scores)) === species;
  });
  return right.length / flowers.length;
}

/** Makes two calls that fail, and tells what their errors say. */
async function fail(client: Client, session: string): Promise<void> {
  const narrow = { x: float32(new Float32Array(3), [1, 3]), labels: int64([0]) };
  for (const [inputs, timeout] of [[narrow, undefined], [{}, 0]] as const) {
    try {
      await client.evaluate(session, inputs, timeout);
    } catch (error) {
      if (!(error instanceof BackwireError)) {
        throw error;
      }
      console.log(`refused: ${status[error.code]} ${error.reason}`.trimEnd());
    }
  }
}

/** Sends a tensor that is larger than a message, has the server add it up, and reads it back. */
async function sendLarge(client: Client): Promise<void> {
  const table: Parameter = {
    name: "table",
    frozen: true,
    initializer: { dtype: "DATA_TYPE_FLOAT32", shape: [SIDE, SIDE], distribution: "DISTRIBUTION_CONSTANT" },
  };
  const sum = { op: "ReduceSum", inputs: ["table"], outputs: ["sum"], attributes: { keepdims: { integer: 0 } } };
  const session = await client.createSession({ parameters: [table], nodes: [sum], outputs: { sum: "sum" } }, null, 0);
  try {
    const sent = float32(Float32Array.from({ length: SIDE * SIDE }, (_, index) => index % 2), [SIDE, SIDE]);
    await client.setParameters(session, { table: sent });
    const { outputs } = await client.evaluate(session, {});
    const back = (await client.getParameters(session, ["table"])).get("table")!;
    const same = back.data.equals(sent.data as Buffer) ? "the same" : "other";
    console.log(`large: ${back.data.length} bytes came back, ${same}; their sum is ${elementsOf(outputs["sum"]!)[0]}`);
  } finally {
    await client.deleteSession(session);
  }
}

async function main(): Promise<void> {
  const client = new Client({
    target: process.env["BACKWIRE_TARGET"] ?? "localhost:50051",
    token: process.env["BACKWIRE_TOKEN"],
    protos: process.env["PROTO"] ?? path.resolve(__dirname, "../../../../proto"),
    timeout: 30_000,
  });
  try {
    await train(client, process.argv[2] ?? path.resolve(__dirname, "../../iris.csv"));
    await sendLarge(client);
    console.log(`repeated: ${client.repeated} calls`);
  } finally {
    client.close();
  }
}

main().catch((error: unknown) => {
  console.error(error instanceof BackwireError ? `${status[error.code]}: ${error.message}` : error);
  process.exitCode = 1;
});
