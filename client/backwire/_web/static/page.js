// Asks every second how the server and the chosen session are doing, and shows it.

import { bytes, draw, figure } from "./curves.js";
import { drawGraph } from "./graph.js";

const PAUSE = 1000;
const MOST_POINTS = 4096;
const MEASURED_PASSES = 5;

const at = (id) => document.getElementById(id);
const told = new URLSearchParams(location.hash.slice(1));
const key = told.get("key") ?? "";

let chosen = told.get("session") ?? "";
let steps = [];
let cursor = "";
let before = new Map(); // the step count of each session and when that was

async function ask(path, query = {}) {
  const response = await fetch(`${path}?${new URLSearchParams(query)}`, {
    headers: { Authorization: `Bearer ${key}` },
  });
  const found = await response.json();
  if (!response.ok) throw new Error(found.error);
  return found;
}

function fail(error) {
  const lost = error instanceof TypeError;
  at("error").textContent = lost ? "`backwire web` does not answer; start it again" : error.message;
  at("error").hidden = false;
}

function newRow(id) {
  const made = document.createElement("tr");
  made.dataset.session = id;
  const choice = document.createElement("button");
  choice.type = "button";
  choice.textContent = id;
  choice.addEventListener("click", () => choose(id));
  made.insertCell().append(choice);
  return made;
}

function fill(row, session, rate) {
  const figures = [rate, session.loss, session.gradient_norm, session.learning_rate].map(figure);
  const texts = [session.tenant, session.state, session.step, ...figures, session.passes, bytes(session.nbytes)];
  texts.forEach((text, index) => {
    (row.cells[index + 1] ?? row.insertCell()).textContent = text;
  });
}

// Rows stay the same elements in the same order, or a click on one could miss it.
function showRows(sessions, time) {
  const body = at("sessions");
  const listed = new Set(sessions.map((each) => each.id));
  const known = new Map();
  for (const each of [...body.rows]) {
    if (listed.has(each.dataset.session)) known.set(each.dataset.session, each);
    else each.remove();
  }
  const sorted = [...sessions].sort((one, other) => (one.id < other.id ? -1 : 1));
  sorted.forEach((session, index) => {
    const row = known.get(session.id) ?? newRow(session.id);
    fill(row, session, rateOf(session, time));
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null);
  });
  markChosen();
}

function markChosen() {
  for (const each of at("sessions").rows) each.className = each.dataset.session === chosen ? "chosen" : "";
}

function rateOf(session, time) {
  const known = before.get(session.id);
  if (!known || time <= known.time || session.steps < known.steps) return null;
  return (session.steps - known.steps) / (time - known.time);
}

function showStatus(status) {
  const calls = status.load ? `; calls: ${status.load.calls.used} of ${status.load.calls.limit}` : "";
  at("server").textContent =
    `${status.target}: version ${status.version}; sessions: ${status.session_count}, in memory: ` +
    `${status.awake_count} with ${bytes(status.nbytes)}; processes: ${status.workers}${calls}`;
  showRows(status.sessions, status.time);
  at("none").hidden = status.sessions.length > 0;
  before = new Map(status.sessions.map((each) => [each.id, { steps: each.steps, time: status.time }]));
}

function showHistory(history) {
  cursor = history.cursor;
  steps = [...steps, ...history.steps].slice(-MOST_POINTS);
  showCurves();
  at("title").textContent = `${history.session.id}: ${history.session.state}, step ${history.session.step}`;
  at("chosen").hidden = false;
}

function showCurves() {
  for (const [id, name] of [["loss", "loss"], ["norm", "gradient_norm"]]) {
    const points = steps.map((each) => ({ step: each.step, value: each[name] }));
    draw(at(id), points, at("logarithmic").checked);
    at(`${id}-last`).textContent = points.length ? figure(points[points.length - 1].value) : "";
  }
}

async function showGraph(passes) {
  at("draw").disabled = at("measure").disabled = true;
  const of = chosen;
  try {
    const graph = await ask("api/graph", { session: of, size: at("size").value, passes });
    if (of !== chosen) return;
    at("facts").textContent = facts(graph);
    drawGraph(at("graph"), graph.boxes, graph.arrows);
  } catch (error) {
    at("facts").textContent = error.message;
  } finally {
    at("draw").disabled = at("measure").disabled = false;
  }
}

function facts(graph) {
  if (graph.shapes_unknown) return `Shapes are not known: ${graph.shapes_unknown}`;
  const assumed = Object.entries(graph.assumed).map(([name, size]) => `${name} = ${size}`);
  const work = `${graph.forward_flops.toLocaleString("en")} FLOP forward, ` +
    `${graph.backward_flops.toLocaleString("en")} backward`;
  const sizes = assumed.length ? `; shapes and work are those of ${assumed.join(", ")}` : "";
  const time = "forward_seconds" in graph
    ? `, in ${milliseconds(graph.forward_seconds)} and ${milliseconds(graph.backward_seconds)}` : "";
  return `${graph.parameter_count.toLocaleString("en")} parameters, ${work}${time}${sizes}`;
}

function milliseconds(seconds) {
  return `${(1000 * seconds).toPrecision(3)} ms`;
}

function choose(id) {
  [chosen, steps, cursor] = [id, [], ""];
  history.replaceState(null, "", `#${new URLSearchParams({ key, session: id })}`);
  at("facts").textContent = "";
  at("graph").replaceChildren();
  at("chosen").hidden = true;
  markChosen();
  look();
}

async function look() {
  const [of, after] = [chosen, cursor];
  if (!of) return;
  const found = await ask("api/history", { session: of, cursor: after }).catch((error) => {
    if (of === chosen) at("chosen").hidden = true;
    throw error;
  });
  if (of === chosen && after === cursor) showHistory(found); // else another look was faster
}

async function poll() {
  try {
    showStatus(await ask("api/status"));
    await look();
    at("error").hidden = true;
  } catch (error) {
    fail(error);
  }
  setTimeout(poll, PAUSE);
}

at("draw").addEventListener("click", () => showGraph(0));
at("measure").addEventListener("click", () => showGraph(MEASURED_PASSES));
at("logarithmic").addEventListener("change", showCurves);
addEventListener("hashchange", () => location.reload());
poll();
