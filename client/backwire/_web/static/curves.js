// Curves of figures, and how figures are written.

const WIDTH = 500, HEIGHT = 200, LEFT = 58, BOTTOM = 18, TOP = 8, RIGHT = 8;
const SVG = "http://www.w3.org/2000/svg";

export function element(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// A number to four digits; a dash for none.
export function figure(number) {
  if (number === null || number === undefined) return "–";
  const size = Math.abs(number);
  if (number !== 0 && (size < 1e-3 || size >= 1e6)) return number.toExponential(2);
  return String(Number(number.toPrecision(4)));
}

export function bytes(number) {
  const power = Math.min(Math.floor(Math.log10(Math.max(number, 1)) / 3), 5);
  return `${figure(Number((number / 1000 ** power).toPrecision(3)))} ${["", "k", "M", "G", "T", "P"][power]}B`;
}

// Draws the values of some points, which are null where they are no finite numbers: there the curve has a gap.
export function draw(svg, points, logarithmic) {
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.replaceChildren();
  const usable = (value) => value !== null && (!logarithmic || value > 0);
  const values = points.map((each) => each.value).filter(usable);
  if (values.length === 0) {
    svg.append(element("text", { x: LEFT, y: HEIGHT / 2 }, "nothing to draw yet"));
    return;
  }
  const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
  const scale = logarithmic ? Math.log : (value) => value;
  const [bottom, top] = [scale(low), scale(high)];
  const x = (index) => LEFT + ((WIDTH - LEFT - RIGHT) * index) / Math.max(points.length - 1, 1);
  const share = (value) => (top > bottom ? (scale(value) - bottom) / (top - bottom) : 0.5);
  const y = (value) => HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share(value);
  for (const value of high > low ? [low, high] : [low]) {
    svg.append(element("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }));
    svg.append(element("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, figure(value)));
  }
  for (const line of runs(points, usable)) {
    const places = line.map((index) => `${x(index).toFixed(1)},${y(points[index].value).toFixed(1)}`);
    if (line.length > 1) svg.append(element("polyline", { points: places.join(" ") }));
    else svg.append(element("circle", { cx: x(line[0]), cy: y(points[line[0]].value), r: 2 }));
  }
  svg.append(element("text", { x: LEFT, y: HEIGHT - 4 }, `step ${points[0].step}`));
  const last = points[points.length - 1].step;
  svg.append(element("text", { x: WIDTH - RIGHT, y: HEIGHT - 4, "text-anchor": "end" }, `step ${last}`));
}

// The indices of points that can be drawn, in lists of those that follow one another.
function runs(points, usable) {
  const found = [];
  points.forEach((each, index) => {
    if (!usable(each.value)) return;
    if (index > 0 && usable(points[index - 1].value)) found[found.length - 1].push(index);
    else found.push([index]);
  });
  return found;
}
