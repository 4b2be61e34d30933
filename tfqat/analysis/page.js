const table = byId("blocks");
let chosen = report.blocks[0];

function profile() {
  const blocks = [...report.blocks].sort((a, b) => a.place - b.place);
  const { svg, width, height } = canvas(byId("profile"), 160, "Output error of each block alone quantized");
  const errors = blocks.map((block) => (block.alone_quantized ? block.alone_quantized.output_error : 0));
  const top = Math.max(...errors, 1e-12), left = 4, bottom = height - 8, room = bottom - 22;
  const step = (width - 2 * left) / blocks.length;
  draw(svg, "text", { x: left, y: 14 }, `up to ${percent(Math.max(...errors))}`);
  draw(svg, "line", { class: "axis", x1: left, x2: width - left, y1: bottom, y2: bottom });
  blocks.forEach((block, number) => {
    const tall = Math.max((errors[number] / top) * room, block.alone_quantized ? 1 : 0);
    const box = { x: left + number * step + step * 0.1, width: step * 0.8, y: bottom - tall, height: tall };
    draw(svg, "rect", { class: block === chosen ? "bar chosen" : "bar", ...box });
  });
  draw(svg, "rect", { class: "pickable", fill: "transparent", x: 0, y: 0, width, height });
  const said = byId("profile-said");
  const words = (block) =>
    `${block.name}: ` + (block.alone_quantized ? percent(block.alone_quantized.output_error) : "not measured");
  said.textContent = words(chosen);
  follow(byId("profile"), svg, blocks.length, left, left, (number, taken) => {
    said.textContent = words(blocks[number]);
    if (taken) choose(blocks[number], false);
  });
}

function front() {
  if (!report.front) return;
  const { points, pareto, chosen, max_drop, float_accuracy } = report.front;
  const order = points.map((_, number) => number).sort((a, b) => points[a].int8_share - points[b].int8_share);
  const { svg, width, height } = canvas(byId("front"), 220, "Accuracy against the share on integers");
  const bound = float_accuracy - max_drop / 100, all = [...points.map((point) => point.accuracy), float_accuracy, bound];
  const pad = (Math.max(...all) - Math.min(...all)) * 0.08 || 0.005;
  const from = Math.min(...points.map((point) => point.int8_share)), left = 12, right = 12, top = 20, bottom = height - 24;
  const start = from < 1 ? Math.max(0, from - 0.05 * (1 - from)) : 0;
  const x = (share) => left + ((share - start) / (1 - start)) * (width - left - right);
  const low = Math.min(...all) - pad, high = Math.max(...all) + pad;
  const y = (accuracy) => bottom - ((accuracy - low) / (high - low)) * (bottom - top);
  draw(svg, "line", { class: "axis", x1: left, x2: width - right, y1: bottom, y2: bottom });
  draw(svg, "line", { class: "level", x1: left, x2: width - right, y1: y(float_accuracy), y2: y(float_accuracy) });
  draw(svg, "line", { class: "clip", x1: left, x2: width - right, y1: y(bound), y2: y(bound) });
  draw(svg, "text", { x: left, y: 12 }, `float ${percent(float_accuracy)}, at least ${percent(bound)}`);
  draw(svg, "text", { x: left, y: height - 6 }, percent(start));
  draw(svg, "text", { x: width - right, y: height - 6, "text-anchor": "end" }, `${percent(1)} on integers`);
  const line = order.filter((number) => pareto.includes(number));
  draw(svg, "polyline", { class: "line", points: line.map((n) => `${x(points[n].int8_share)},${y(points[n].accuracy)}`).join(" ") });
  for (const n of order) {
    const kind = n === chosen ? "dot chosen" : pareto.includes(n) ? "dot" : "dot beaten";
    draw(svg, "circle", { class: kind, cx: x(points[n].int8_share), cy: y(points[n].accuracy), r: n === chosen ? 7 : 4.5 });
  }
  draw(svg, "rect", { class: "pickable", fill: "transparent", x: 0, y: 0, width, height });
  const said = byId("front-said");
  const words = (n) => {
    const { floats, accuracy, drop, int8_share } = points[n];
    const told = floats.length > 6 ? `${floats.slice(0, 6).join(", ")} and ${floats.length - 6} more` : floats.join(", ");
    return `${n === chosen ? "Chosen: " : ""}${percent(accuracy)}, ${drop.toFixed(2)} points below float, ${percent(int8_share)} on integers; in float: ${told || "nothing"}`;
  };
  if (chosen !== null) said.textContent = words(chosen);
  nearest(byId("front"), svg, order.map((n) => [x(points[n].int8_share), y(points[n].accuracy)]), (place) => {
    said.textContent = words(order[place]);
  });
}

function histogram(place, said, tensor) {
  const { counts, low, high } = tensor.histogram;
  const { svg, width, height } = canvas(place, 190, `Histogram of ${tensor.name}`);
  const from = Math.min(low, tensor.clip_low), to = Math.max(high, tensor.clip_high);
  const left = 6, right = 6, bottom = height - 24, span = to - from || 1;
  const x = (value) => left + ((value - from) / span) * (width - left - right);
  const scale = byId("log").checked ? (count) => Math.log1p(count) : (count) => count;
  const top = Math.max(...counts.map(scale), 1e-12);
  const bin = (high - low) / counts.length;
  for (const [start, end] of [[from, tensor.clip_low], [tensor.clip_high, to]])
    if (end > start) draw(svg, "rect", { class: "shade", x: x(start), y: 16, width: x(end) - x(start), height: bottom - 16 });
  counts.forEach((count, number) => {
    const tall = (scale(count) / top) * (bottom - 20);
    const start = x(low + number * bin), wide = Math.max(x(low + (number + 1) * bin) - start, 1);
    if (count) draw(svg, "rect", { class: "bar", x: start, y: bottom - tall, width: wide, height: tall });
  });
  draw(svg, "line", { class: "axis", x1: left, x2: width - right, y1: bottom, y2: bottom });
  for (const [value, anchor] of [[tensor.clip_low, "start"], [tensor.clip_high, "end"]]) {
    draw(svg, "line", { class: "clip", x1: x(value), x2: x(value), y1: 16, y2: bottom });
    draw(svg, "text", { x: x(value), y: 12, "text-anchor": x(value) < width / 2 ? "start" : "end" }, `clips ${short(value)}`);
  }
  draw(svg, "text", { x: left, y: height - 6 }, short(from));
  draw(svg, "text", { x: width - right, y: height - 6, "text-anchor": "end" }, short(to));
  const still = `${short(low)} to ${short(high)}; integers hold ${short(tensor.clip_low)} to ${short(tensor.clip_high)}; clipped ${percent(tensor.clipped)}`;
  said.textContent = still;
  const begin = x(low), end = width - x(high);
  follow(place, svg, counts.length, begin, end, (number) => {
    said.textContent = `${short(low + number * bin)} to ${short(low + (number + 1) * bin)}: ${counts[number].toLocaleString("en")} values`;
  });
}

function channels(place, said, kernel) {
  const { low, high } = kernel.channels;
  const order = low.map((_, number) => number);
  const wide = (number) => Math.max(-low[number], high[number]);
  if (byId("sorted").checked) order.sort((a, b) => wide(b) - wide(a));
  const { svg, width, height } = canvas(place, 170, `Ranges of the channels of ${kernel.rounding.name}`);
  const top = Math.max(...high, 0), bottom = Math.min(...low, 0), left = 6, span = top - bottom || 1;
  const y = (value) => 18 + ((top - value) / span) * (height - 36);
  const step = (width - 2 * left) / order.length;
  order.forEach((number, place) => {
    const tall = Math.max(y(low[number]) - y(high[number]), 1);
    const box = { x: left + place * step, width: Math.max(step * (step > 3 ? 0.75 : 1), 0.5), y: y(high[number]), height: tall };
    draw(svg, "rect", { class: "bar2", ...box });
  });
  draw(svg, "line", { class: "axis", x1: left, x2: width - left, y1: y(0), y2: y(0) });
  draw(svg, "text", { x: left, y: 12 }, short(top));
  draw(svg, "text", { x: left, y: height - 4 }, short(bottom));
  const dead = kernel.channels.dead ? `; ${kernel.channels.dead} are all zero` : "";
  said.textContent = `${order.length} channels, widest by narrowest ${short(kernel.channels.ratio)}${dead}`;
  follow(place, svg, order.length, left, left, (place) => {
    const number = order[place];
    said.textContent = `channel ${number}: ${short(low[number])} to ${short(high[number])}`;
  });
}

function facts(block) {
  const rows = [["kind", block.kind], ["SQNR", decibel(block.sqnr_db)]];
  for (const [what, score] of [["alone quantized", block.alone_quantized], ["alone float", block.alone_float]]) {
    if (score === null) { rows.push([what, "not measured"]); continue; }
    if (score.accuracy !== null) rows.push([`accuracy, ${what}`, percent(score.accuracy)]);
    rows.push([`output error, ${what}`, percent(score.output_error)]);
  }
  byId("detail-facts").replaceChildren(
    ...rows.map(([name, value]) => {
      const pair = make("div");
      pair.append(make("dt", {}, name), make("dd", {}, value));
      return pair;
    }),
  );
}

function plot(title, about, drawing) {
  const place = make("div", { class: "plot" }), said = make("p", { class: "said soft", "aria-live": "polite" });
  byId("detail-plots").append(make("h3", {}, title), make("p", { class: "soft" }, about), place, said);
  drawing(place, said);
}

function detail() {
  byId("detail").hidden = false;
  byId("detail-name").textContent = chosen.name;
  facts(chosen);
  byId("detail-plots").replaceChildren();
  const rounding = (tensor) => `SQNR ${decibel(tensor.sqnr_db)}, mean squared error ${short(tensor.mse)}.`;
  for (const tensor of chosen.tensors)
    plot(`Values of ${tensor.name}`, rounding(tensor), (place, said) => histogram(place, said, tensor));
  if (chosen.kernel === null) return;
  const kernel = chosen.kernel;
  plot(`Weights of ${kernel.rounding.name}`, rounding(kernel.rounding), (place, said) => histogram(place, said, kernel.rounding));
  plot("Range of each channel", "From the least to the greatest weight.", (place, said) => channels(place, said, kernel));
}

function choose(block, scroll) {
  chosen = block;
  for (const row of table.tBodies[0].rows) row.classList.toggle("chosen", report.blocks[row.dataset.block] === block);
  profile();
  detail();
  if (scroll) byId("detail").scrollIntoView({ behavior: "smooth" });
}

function sort(column, header) {
  const up = header.getAttribute("aria-sort") === "descending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = (row) => row.cells[column].dataset.value;
  const compare = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === "" || y === "") return (x === "") - (y === "");  // what is not known comes last, either way
    const order = header.classList.contains("text") ? x.localeCompare(y) : Number(x) - Number(y);
    return up ? order : -order;
  };
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
}

[...table.tHead.rows[0].cells].forEach((header, column) => {
  header.querySelector("button").addEventListener("click", () => sort(column, header));
});
table.tBodies[0].addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) choose(report.blocks[button.closest("tr").dataset.block], true);
});
byId("log").addEventListener("change", detail);
byId("sorted").addEventListener("change", detail);
onResize(() => { profile(); detail(); front(); });
front();
choose(chosen, false);
