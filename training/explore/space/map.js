"use strict";
// One map: dots on a canvas, a card with the picture of the one that is pointed at.
const data = JSON.parse(document.getElementById("data").textContent);
const canvas = document.getElementById("map"), pen = canvas.getContext("2d");
const card = document.getElementById("card"), said = document.getElementById("said");
const [cardPicture, cardName, cardLabel] = card.children;
const hidden = new Set(), count = data.names.length, REACH = 14;
const sprite = new Image();
let view = { scale: 1, x: 0, y: 0 }, chosen = -1, withPictures = false, dragged = null, waits = false;

const colours = data.values.map(value => value === null ? "#8a94a0" : data.palette[value]);
const isShown = row => !hidden.has(data.values[row]);

function fit() {
  const box = canvas.getBoundingClientRect();
  const xs = data.points.map(point => point[0]), ys = data.points.map(point => point[1]);
  // Not spread: a call takes no 100,000 arguments.
  const least = values => values.reduce((a, b) => Math.min(a, b));
  const most = values => values.reduce((a, b) => Math.max(a, b));
  const [left, right, low, high] = [least(xs), most(xs), least(ys), most(ys)];
  const margin = 40;
  const scale = Math.min((box.width - 2 * margin) / (right - left || 1),
                         (box.height - 2 * margin) / (high - low || 1));
  view = { scale, x: box.width / 2 - scale * (left + right) / 2,
           y: box.height / 2 + scale * (low + high) / 2 };
}

const screenOf = row => [view.x + view.scale * data.points[row][0],
                         view.y - view.scale * data.points[row][1]];

function drawPicture(onto, row, x, y, side) {
  if (!data.found[row] || !sprite.complete || !sprite.naturalWidth) return false;
  const column = row % data.columns, line = Math.floor(row / data.columns);
  onto.drawImage(sprite, column * data.side, line * data.side, data.side, data.side,
                 x, y, side, side);
  return true;
}

function draw() {
  waits = false;
  const ratio = window.devicePixelRatio || 1, box = canvas.getBoundingClientRect();
  const width = Math.round(box.width * ratio), height = Math.round(box.height * ratio);
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, box.width, box.height);
  const radius = count > 2000 ? 2.5 : count > 500 ? 3.5 : 4.5, side = 40;
  const placed = [];
  for (let row = 0; row < count; row++) {
    if (!isShown(row)) continue;
    const [x, y] = screenOf(row);
    if (x < -side || y < -side || x > box.width + side || y > box.height + side) continue;
    pen.fillStyle = colours[row];
    pen.beginPath();
    pen.arc(x, y, radius, 0, 2 * Math.PI);
    pen.fill();
    const near = ([, px, py]) => Math.max(Math.abs(px - x), Math.abs(py - y)) < side + 4;
    if (withPictures && data.found[row] && !placed.some(near)) placed.push([row, x, y]);
  }
  for (const [row, x, y] of placed) {
    pen.fillStyle = colours[row];
    pen.fillRect(x - side / 2 - 2, y - side / 2 - 2, side + 4, side + 4);
    drawPicture(pen, row, x - side / 2, y - side / 2, side);
  }
  if (chosen >= 0 && isShown(chosen)) {
    const [x, y] = screenOf(chosen);
    pen.lineWidth = 2.5;
    pen.strokeStyle = getComputedStyle(document.body).color;
    pen.beginPath();
    pen.arc(x, y, radius + 4, 0, 2 * Math.PI);
    pen.stroke();
  }
}

function redraw() {
  if (!waits) {
    waits = true;
    requestAnimationFrame(draw);
  }
}

function choose(row, aloud) {
  chosen = row;
  card.hidden = row < 0;
  if (row >= 0) {
    const brush = cardPicture.getContext("2d");
    brush.clearRect(0, 0, data.side, data.side);
    cardPicture.hidden = !drawPicture(brush, row, 0, 0, data.side);
    cardName.textContent = data.names[row];
    cardLabel.textContent = data.labels[row];
    const [x, y] = screenOf(row), box = canvas.getBoundingClientRect();
    card.style.left = Math.max(0, Math.min(x + 16, box.width - card.offsetWidth - 4)) + "px";
    const above = y - card.offsetHeight - 8, below = y + 16;
    card.style.top = Math.max(0, below + card.offsetHeight > box.height ? above : below) + "px";
    if (aloud) said.textContent = [data.names[row], data.labels[row]].filter(Boolean).join(", ");
  }
  redraw();
}

function nearest(x, y, allowed) {
  let found = -1, least = Infinity;
  for (let row = 0; row < count; row++) {
    if (!isShown(row)) continue;
    const [px, py] = screenOf(row), away = allowed(px - x, py - y);
    if (away < least) [found, least] = [row, away];
  }
  return found;
}

const within = event => {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};

function zoom(factor, x, y) {
  view = { scale: view.scale * factor, x: x + (view.x - x) * factor, y: y + (view.y - y) * factor };
  choose(chosen, false);
}

function zoomMiddle(factor) {
  const box = canvas.getBoundingClientRect();
  const [x, y] = chosen >= 0 ? screenOf(chosen) : [box.width / 2, box.height / 2];
  zoom(factor, x, y);
}

function showAll() {
  fit();
  choose(chosen, false);
}

function togglePictures() {
  withPictures = !withPictures;
  document.getElementById("pictures").setAttribute("aria-pressed", withPictures);
  redraw();
}

canvas.addEventListener("pointermove", event => {
  const [x, y] = within(event);
  if (dragged) {
    view = { ...view, x: view.x + x - dragged[0], y: view.y + y - dragged[1] };
    dragged = [x, y];
    choose(-1, false);
    return;
  }
  const row = nearest(x, y, (dx, dy) => Math.hypot(dx, dy) <= REACH ? Math.hypot(dx, dy) : Infinity);
  if (row !== chosen) choose(row, false);
});
canvas.addEventListener("pointerleave", () => dragged || choose(-1, false));
canvas.addEventListener("pointerdown", event => {
  dragged = within(event);
  canvas.setPointerCapture(event.pointerId);
});
for (const name of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(name, () => { dragged = null; });
}
canvas.addEventListener("wheel", event => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY / 400), ...within(event));
}, { passive: false });

const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const KEYS = { "+": () => zoomMiddle(1.4), "=": () => zoomMiddle(1.4), "-": () => zoomMiddle(1 / 1.4),
               "0": showAll, t: togglePictures, T: togglePictures, Escape: () => choose(-1, false) };
canvas.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const direction = DIRECTIONS[event.key];
  if (direction) {
    const box = canvas.getBoundingClientRect();
    const [x, y] = chosen >= 0 ? screenOf(chosen) : [box.width / 2, box.height / 2];
    const row = chosen < 0 ? nearest(x, y, Math.hypot) : nearest(x, y, (dx, dy) => {
      const along = dx * direction[0] + dy * direction[1];
      const aside = Math.abs(dx * direction[1]) + Math.abs(dy * direction[0]);
      return along > 1e-9 ? along + 2 * aside : Infinity;
    });
    if (row >= 0) choose(row, true);
  } else if (KEYS[event.key]) {
    KEYS[event.key]();
  } else {
    return;
  }
  event.preventDefault();
});

document.getElementById("in").addEventListener("click", () => zoomMiddle(1.4));
document.getElementById("out").addEventListener("click", () => zoomMiddle(1 / 1.4));
document.getElementById("all").addEventListener("click", showAll);
document.getElementById("pictures").addEventListener("click", togglePictures);

function element(kind, text, holder) {
  const made = document.createElement(kind);
  made.textContent = made.title = text; // never HTML: names are anybody's
  holder.append(made);
  return made;
}

function addLegend() {
  const holder = document.getElementById("legend"), legend = data.legend;
  if (!legend) return;
  element("h2", legend.title, holder);
  if (legend.ends) {
    const bar = element("div", "", holder);
    bar.id = "scale";
    bar.style.background = `linear-gradient(to right, ${data.palette.join(", ")})`;
    const ends = element("div", "", holder);
    ends.id = "ends";
    legend.ends.forEach(end => element("span", end, ends));
    return;
  }
  const list = element("ul", "", holder);
  list.id = "classes";
  legend.classes.forEach((name, value) => {
    const button = element("button", "", element("li", "", list));
    button.setAttribute("aria-pressed", "true");
    const swatch = element("span", "", button);
    swatch.className = "swatch";
    swatch.style.background = data.palette[value];
    element("span", name, button);
    button.addEventListener("click", () => {
      if (!hidden.delete(value)) hidden.add(value);
      button.setAttribute("aria-pressed", !hidden.has(value));
      if (chosen >= 0 && !isShown(chosen)) choose(-1, false);
      redraw();
    });
  });
}

addLegend();
new ResizeObserver(() => showAll()).observe(canvas);
sprite.addEventListener("load", () => choose(chosen, false));
if (data.sprite) sprite.src = data.sprite;
fit();
redraw();
// For the console: latentMap.screenOf(12) is where image 12 is drawn, in pixels of the canvas.
window.latentMap = { screenOf, get chosen() { return chosen; }, choose: row => choose(row, true) };
