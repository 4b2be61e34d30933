const PLOTS = {
  loss: [["training", "loss"], ["validation", "val_loss"]],
  figure: [["training", report.figure], ["validation", `val_${report.figure}`]],
  learning_rate: [["learning rate", "learning_rate"]],
};
const title = (name) => (name === "figure" ? report.figure : name);
const said = (name, value) => (name === "figure" ? percent(value) : short(value));
// A task may measure its figure on the validation images alone.
const known = ([, key]) => report.metrics.some((row) => row[key] != null);

// Epochs of both phases one after the other, a line between the phases.
function curve(name) {
  const rows = report.metrics, lines = PLOTS[name].filter(known);
  if (!lines.length) return;
  const { svg, width, height } = canvas(byId(name), 180, `${title(name)} over the epochs`);
  const values = rows.flatMap((row) => lines.map(([, key]) => row[key])).filter((value) => value != null);
  if (!values.length) return;
  const top = Math.max(...values), low = name === "learning_rate" ? 0 : Math.min(...values), span = top - low || 1;
  const left = 8, right = 8, up = 34, bottom = height - 22;
  const step = (width - left - right) / rows.length;
  const x = (number) => left + (number + 0.5) * step;
  const y = (value) => bottom - ((value - low) / span) * (bottom - up);
  draw(svg, "line", { class: "axis", x1: left, x2: width - right, y1: bottom, y2: bottom });
  draw(svg, "text", { x: left, y: 12 }, `${said(name, low)} to ${said(name, top)}`);
  rows.forEach((row, number) => {
    if (number && row.phase === rows[number - 1].phase) return;
    const edge = left + number * step;
    if (number) draw(svg, "line", { class: "axis", x1: edge, x2: edge, y1: up - 8, y2: bottom });
    draw(svg, "text", { x: edge, y: height - 6 }, row.phase);
  });
  lines.forEach(([label, key], order) => {
    const second = order ? " second" : "";
    let run = [];
    const flush = () => {
      if (run.length > 1) draw(svg, "polyline", { class: "line" + second, points: run.join(" ") });
      run = [];
    };
    rows.forEach((row, number) => {
      if (row[key] == null || (number && row.phase !== rows[number - 1].phase)) flush();
      if (row[key] == null) return;
      run.push(`${x(number)},${y(row[key])}`);
      if (rows.length <= 60) draw(svg, "circle", { class: "dot" + second, cx: x(number), cy: y(row[key]), r: 3 });
    });
    flush();
    if (lines.length > 1) {
      const at = width - right - (lines.length - 1 - order) * 84 - 76;
      draw(svg, "circle", { class: "dot" + second, cx: at, cy: 8, r: 4 });
      draw(svg, "text", { x: at + 8, y: 12 }, label);
    }
  });
  draw(svg, "rect", { class: "pickable", fill: "transparent", x: 0, y: 0, width, height });
  const words = (row) => {
    const told = lines.map(([label, key]) => `${label} ${row[key] == null ? "no number" : said(name, row[key])}`);
    return `${row.phase}, epoch ${row.epoch}: ${told.join(", ")}`;
  };
  byId(`${name}-said`).textContent = words(rows[rows.length - 1]);
  follow(byId(name), svg, rows.length, left, right, (number) => (byId(`${name}-said`).textContent = words(rows[number])));
}

function curves() {
  if (report.metrics.length) Object.keys(PLOTS).forEach(curve);
}

const states = byId("states");
if (states)
  states.addEventListener("change", () => {
    const gone = new Set([...states.querySelectorAll("input:not(:checked)")].map((box) => box.value));
    // `int8, kernel 4 bits` is int8, too.
    for (const row of byId("ops").tBodies[0].rows) row.hidden = gone.has(row.cells[1].textContent.split(",")[0]);
  });
onResize(curves);
curves();
