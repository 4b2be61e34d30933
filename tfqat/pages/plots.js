const report = JSON.parse(document.getElementById("report").textContent);
const byId = (id) => document.getElementById(id);

// Names come from the model: they are set as text, never as markup.
function make(tag, attributes, text) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function draw(parent, tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return parent.appendChild(element);
}

const short = (x) => (x === 0 ? "0" : Math.abs(x) >= 1e4 || Math.abs(x) < 1e-3 ? x.toExponential(2) : String(+x.toPrecision(4)));
const percent = (x) => (x > 0 && x < 1e-4 ? (100 * x).toPrecision(2) : (100 * x).toFixed(x < 0.1 ? 2 : 1)) + " %";
const decibel = (x) => (x === null ? "no loss" : x.toFixed(1) + " dB");

function canvas(place, height, label) {
  place.replaceChildren();
  const width = Math.max(place.clientWidth, 200);
  const svg = draw(place, "svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label });
  return { svg, width, height };
}

// Calls `tell` with the number of the bar under the pointer, or chosen by the arrow keys.
function follow(place, svg, count, left, right, tell) {
  const at = (event) => {
    const box = svg.getBoundingClientRect();
    const share = (event.clientX - box.left - left) / (box.width - left - right);
    return Math.min(count - 1, Math.max(0, Math.floor(share * count)));
  };
  let current = 0;
  svg.addEventListener("pointermove", (event) => tell((current = at(event)), false));
  svg.addEventListener("click", (event) => tell((current = at(event)), true));
  place.tabIndex = 0;
  place.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Enter: 0 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    current = Math.min(count - 1, Math.max(0, current + step));
    tell(current, event.key === "Enter");
  };
}

// Calls `tell` with the number of the spot ([x, y]) that is nearest to the pointer, or chosen by the arrow keys.
function nearest(place, svg, spots, tell) {
  let current = 0;
  const at = (event) => {
    const box = svg.getBoundingClientRect();
    const far = spots.map(([x, y]) => Math.hypot(x - (event.clientX - box.left), y - (event.clientY - box.top)));
    return far.indexOf(Math.min(...far));
  };
  for (const kind of ["pointermove", "click"]) svg.addEventListener(kind, (event) => tell((current = at(event))));
  place.tabIndex = 0;
  place.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    tell((current = Math.min(spots.length - 1, Math.max(0, current + step))));
  };
}

// Plots are as wide as the page; a phone's address bar changes only its height.
function onResize(drawing) {
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) { width = window.innerWidth; drawing(); }
  });
}
