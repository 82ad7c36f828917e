"use strict";
// Draws only the rows in view: the page holds any number of videos, the document some fifty rows.
const data = JSON.parse(document.getElementById("data").textContent);
const ROW = 30, MARGIN = 10;
const bytes = data.courses.map((text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)));
const box = document.getElementById("box"), body = document.getElementById("rows");
const field = document.getElementById("filter"), kind = document.getElementById("kind");
const total = data.id.length;
const number = (digits) => (v) => (v === null ? "" : v.toFixed(digits).replace(/^-(0\.0+)$/, "$1"));
const columns = [
  { name: "id", get: (i) => data.id[i], show: String, text: true, width: "26%", kept: true },
  { name: "frames", get: (i) => data.frames[i], show: String, width: "5.5rem" },
  { name: "seconds", get: (i) => data.seconds[i], show: number(1), width: "6rem" },
  { name: "face", get: (i) => (data.message[i] ? null : data.face[i]),
    show: (v) => (v === null ? "" : (100 * v).toFixed(1) + " %"), width: "5.5rem" },
];
data.means.forEach((name, c) => {
  if (c < data.courses.length) columns.push({ name: name, course: c, get: (i) => data.mean[c][i], width: "", kept: true });
  columns.push({ name: "mean " + name, get: (i) => data.mean[c][i], show: number(2), width: "5rem" });
});
if (data.top.length) {
  columns.push({ name: "expression", get: (i) => data.classes[data.top[i]] || "", show: String, text: true, width: "7rem" });
}
const kinds = [
  ["all videos", () => true],
  ["failed", (i) => data.message[i] !== ""],
  ["no face at all", (i) => !data.message[i] && data.face[i] === 0],
  ["face in less than half", (i) => !data.message[i] && data.face[i] < 0.5],
  ["face in less than 90 %", (i) => !data.message[i] && data.face[i] < 0.9],
];
let order = [], sorted = columns[0], down = false, first = -1, last = -1, shown = columns;
// A narrow window keeps the ids and the curves; the figures stand in a wide one.
const narrow = window.matchMedia("(max-width: 52rem)");

function select() {
  const text = field.value.toLowerCase(), keep = kinds[kind.selectedIndex][1];
  order = [];
  for (let i = 0; i < total; i++) {
    if (keep(i) && (!text || data.id[i].toLowerCase().includes(text) || data.message[i].toLowerCase().includes(text))) order.push(i);
  }
  const get = sorted.get, sign = down ? -1 : 1;
  order.sort((a, b) => {
    const x = get(a), y = get(b);
    if (x === y) return a - b;
    if (x === null || x === "") return 1; // what is not there comes last, whatever the direction
    if (y === null || y === "") return -1;
    return x < y ? -sign : sign;
  });
  document.getElementById("count").textContent = order.length === total ? total + " videos" : order.length + " of " + total + " videos";
  box.style.height = "min(70vh, " + (order.length * ROW + 60) + "px)";
  box.scrollTop = 0;
  first = -1;
  draw();
}

function spark(c, i) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const parts = data.parts, codes = bytes[c].subarray(i * parts, (i + 1) * parts);
  svg.setAttribute("viewBox", "0 0 " + parts + " 28");
  svg.setAttribute("preserveAspectRatio", "none");
  const add = (tag, values) => {
    const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const name in values) e.setAttribute(name, values[name]);
    svg.appendChild(e);
  };
  const y = (code) => (26 - (24 * code) / 254).toFixed(1);
  for (let p = 0, q; p < parts; p = q + 1) {
    for (q = p; q < parts && codes[q] === 255; ) q++;
    if (q > p) add("rect", { x: p, y: 0, width: q - p, height: 28, fill: "#e3e5e8" });
  }
  if (data.low[c] < 0) {
    const zero = y((254 * -data.low[c]) / (data.high[c] - data.low[c]));
    add("path", { d: "M0 " + zero + "H" + parts, stroke: "#b9c0c7", "vector-effect": "non-scaling-stroke" });
  }
  let path = "";
  for (let p = 0; p < parts; p++) {
    if (codes[p] === 255) continue;
    const begins = p === 0 || codes[p - 1] === 255, ends = p === parts - 1 || codes[p + 1] === 255;
    if (begins) path += "M" + p + " " + y(codes[p]);
    path += "L" + (p + 0.5) + " " + y(codes[p]);
    if (ends) path += "L" + (p + 1) + " " + y(codes[p]);
  }
  add("path", { d: path || "M0 0", fill: "none", stroke: c ? "#D55E00" : "#0072B2", "stroke-width": 1.5, "vector-effect": "non-scaling-stroke" });
  return svg;
}

function space(height) {
  const row = document.createElement("tr"), cell = document.createElement("td");
  row.className = "space";
  cell.colSpan = shown.length;
  cell.style.height = height + "px";
  row.appendChild(cell);
  return row;
}

function line(i) {
  const row = document.createElement("tr"), message = data.message[i];
  if (message) row.className = "failed";
  for (const column of shown) {
    const cell = document.createElement("td");
    if (column.text) cell.className = "text";
    if (message && column !== columns[0]) {
      cell.className = "text";
      cell.colSpan = shown.length - 1;
      cell.textContent = cell.title = message;
      row.appendChild(cell);
      break;
    }
    if (column.course !== undefined) {
      cell.className = "course";
      cell.appendChild(spark(column.course, i));
    } else {
      cell.textContent = column.show(column.get(i));
      if (column.text) cell.title = cell.textContent;
    }
    row.appendChild(cell);
  }
  return row;
}

function draw() {
  const from = Math.max(0, Math.floor(box.scrollTop / ROW) - MARGIN);
  const to = Math.min(order.length, Math.ceil((box.scrollTop + box.clientHeight) / ROW) + MARGIN);
  if (from === first && to === last) return;
  [first, last] = [from, to];
  body.replaceChildren(space(from * ROW), ...order.slice(from, to).map(line), space((order.length - to) * ROW));
}

function heads() {
  shown = columns.filter((column) => column.kept || !narrow.matches);
  const widths = [], cells = [];
  for (const column of shown) {
    const width = document.createElement("col"), cell = document.createElement("th"), button = document.createElement("button");
    width.style.width = column.width;
    widths.push(width);
    if (column.text || column.course !== undefined) cell.className = "text";
    if (column === sorted) cell.setAttribute("aria-sort", down ? "descending" : "ascending");
    button.textContent = column.name + (column === sorted ? (down ? " ▾" : " ▴") : "");
    button.addEventListener("click", () => {
      down = sorted === column ? !down : !column.text;
      sorted = column;
      heads();
      document.querySelectorAll("#head button")[shown.indexOf(column)].focus();
      select();
    });
    cell.appendChild(button);
    cells.push(cell);
  }
  document.getElementById("widths").replaceChildren(...widths);
  document.getElementById("head").replaceChildren(...cells);
}
for (const [name, keep] of kinds) {
  let count = 0;
  for (let i = 0; i < total; i++) count += keep(i);
  const option = document.createElement("option");
  option.textContent = name + " (" + count + ")";
  kind.appendChild(option);
}
let waiting = 0;
field.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(select, 120); });
kind.addEventListener("change", select);
box.addEventListener("scroll", draw, { passive: true });
window.addEventListener("resize", draw);
narrow.addEventListener("change", () => { heads(); first = -1; draw(); });
heads();
select();
