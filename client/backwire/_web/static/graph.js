// A graph as boxes in rows: each stands below all that it is computed from.

import { element } from "./curves.js";

const LINE = 15, GAP_X = 18, GAP_Y = 34, PADDING = 8, LETTER = 6.6, LONGEST = 40;
const SWEEPS = 4;

export function drawGraph(svg, boxes, arrows) {
  const placed = new Map(boxes.map((box) => [box.id, { box, row: 0, order: 0, ...sized(box) }]));
  const lines = arrows.map((arrow) => ({ arrow, from: placed.get(arrow.start), to: placed.get(arrow.end) }));
  const values = lines.filter((line) => line.arrow.way === "value");
  const rows = inRows([...placed.values()], values);
  const [width, height] = place(rows, values);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("width", width);
  svg.setAttribute("height", height);
  svg.replaceChildren(...lines.map(path), ...[...placed.values()].map(drawn));
}

function sized(box) {
  const texts = [box.title, ...box.notes].map(short);
  const longest = Math.max(...texts.map((text) => text.length));
  return { texts, width: 2 * PADDING + LETTER * longest, height: 2 * PADDING + LINE * texts.length };
}

function short(text) {
  return text.length > LONGEST ? `${text.slice(0, LONGEST - 1)}…` : text;
}

// Boxes come in the order in which they are computed, so one pass finds how deep each stands.
function inRows(all, values) {
  const arriving = new Map(all.map((each) => [each, []]));
  const leaving = new Map(all.map((each) => [each, []]));
  for (const line of values) {
    arriving.get(line.to).push(line.from);
    leaving.get(line.from).push(line.to);
  }
  for (const each of all) each.row = arriving.get(each).reduce((most, from) => Math.max(most, from.row + 1), 0);
  for (const each of all) { // what is given stands right above its first use
    const uses = leaving.get(each).map((to) => to.row);
    if (arriving.get(each).length === 0 && uses.length) each.row = uses.reduce((a, b) => Math.min(a, b)) - 1;
  }
  const rows = [];
  for (const each of all) (rows[each.row] ??= []).push(each);
  return rows;
}

// Sets where each box stands, those of a row near what they are connected with; returns the width and height of all.
function place(rows, values) {
  const near = new Map();
  for (const { from, to } of values) {
    near.set(from, [...(near.get(from) ?? []), to]);
    near.set(to, [...(near.get(to) ?? []), from]);
  }
  const width = rows.map(extent).reduce((a, b) => Math.max(a, b), 0) + 2 * GAP_X;
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    for (const row of sweep % 2 ? [...rows].reverse() : rows) {
      if (sweep > 0) {
        for (const each of row) each.order = mean((near.get(each) ?? [each]).map((other) => other.x));
        row.sort((a, b) => a.order - b.order);
      }
      let left = (width - extent(row)) / 2;
      for (const each of row) {
        each.x = left + each.width / 2;
        left += each.width + GAP_X;
      }
    }
  }
  let top = GAP_Y / 2;
  for (const row of rows) {
    for (const each of row) each.y = top;
    top += row.map((each) => each.height).reduce((a, b) => Math.max(a, b)) + GAP_Y;
  }
  return [width, top];
}

function extent(row) {
  return row.reduce((sum, each) => sum + each.width, GAP_X * (row.length - 1));
}

function mean(numbers) {
  return numbers.reduce((a, b) => a + b, 0) / numbers.length;
}

function path({ arrow, from, to }) {
  const [y1, y2] = [from.y + from.height, to.y];
  const bend = Math.max((y2 - y1) / 2, GAP_Y / 2);
  return element("path", {
    class: arrow.way,
    d: `M${from.x},${y1} C${from.x},${y1 + bend} ${to.x},${y2 - bend} ${to.x},${y2}`,
  });
}

function drawn({ box, x, y, width, height, texts }) {
  const group = element("g", { class: box.kind });
  group.append(element("title", {}, [box.title, ...box.notes].join("\n")));
  group.append(element("rect", { x: x - width / 2, y, width, height, rx: box.kind === "op" ? 4 : height / 2 }));
  texts.forEach((text, index) => {
    const baseline = y + PADDING + LINE * index + 11;
    group.append(element("text", { x, y: baseline, "text-anchor": "middle", class: index ? "note" : "name" }, text));
  });
  return group;
}
