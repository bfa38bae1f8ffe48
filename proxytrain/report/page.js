"use strict";
// Lets a reader point at figures, with a pointer or the arrow keys, and sort tables. Without it the page says the same.

for (const plot of document.querySelectorAll(".plot")) if (plot.querySelector("svg[data-axes]")) pointable(plot);
for (const table of document.querySelectorAll("table.sortable")) sortable(table);

function pointable(plot) {
  const NEAR = 28, svg = plot.querySelector("svg"), axes = JSON.parse(svg.dataset.axes), make = (name) =>
    document.createElementNS("http://www.w3.org/2000/svg", name);
  const tip = document.createElement("output"), trace = make("path"), ring = make("circle");
  let things = null, at = -1, step = 0;
  tip.className = "tip";
  tip.hidden = true;
  trace.setAttribute("class", "trace");
  ring.setAttribute("class", "ring");
  ring.setAttribute("r", 6);
  plot.append(tip);
  plot.tabIndex = 0;
  plot.setAttribute("role", "group");
  plot.setAttribute("aria-label", plot.closest("figure").querySelector("h2").textContent +
    ": up and down go from run to run, left and right along a curve");

  // what can be pointed at: {name, path, points}; dots have one point and no path
  function find() {
    const out = [];
    for (const group of svg.querySelectorAll("[data-hover]")) {
      const names = group.dataset.hover.split("\n"), dots = [...group.querySelectorAll("use")];
      dots.forEach((dot, i) => out.push({ name: names[Math.min(i, names.length - 1)], path: null,
        points: [[+dot.getAttribute("x"), +dot.getAttribute("y"), false]] }));
      const path = dots.length ? null : group.querySelector("path");
      if (!path) continue;
      const points = [...path.getAttribute("d").matchAll(/([ML])\s*(-?[\d.]+)[\s,]+(-?[\d.]+)/g)]
        .map(([, kind, x, y]) => [+x, +y, kind === "L"]);
      out.push({ name: names[0], path, points });
    }
    return out.filter(({ points }) => points.some(([x, y]) => panel(x, y)));
  }

  const found = () => (things ??= find());

  // the panel in which a place lies; what is drawn outside of one is cut off
  const panel = (x, y) =>
    axes.find(({ box }) => x > box[0] - 3 && x < box[2] + 3 && y > box[1] - 3 && y < box[3] + 3);

  function nearest(x, y) {
    let best = null, least = NEAR;
    found().forEach((thing, index) => {
      const bonus = thing.path ? 0 : 5; // a dot on its line wins
      thing.points.forEach(([bx, by, joined], i) => {
        const [ax, ay] = joined ? thing.points[i - 1] : [bx, by];
        if (Math.max(Math.min(ax, bx) - x, x - Math.max(ax, bx)) > least + bonus) return;
        const dx = bx - ax, dy = by - ay, length = dx * dx + dy * dy;
        const t = length ? Math.max(0, Math.min(1, ((x - ax) * dx + (y - ay) * dy) / length)) : 0;
        const px = ax + t * dx, py = ay + t * dy, far = Math.hypot(px - x, py - y) - bonus;
        if (far < least && panel(px, py)) { least = far; best = { index, x: px, y: py }; }
      });
    });
    return best;
  }

  // value on an axis at a share of its length
  const value = (axis, share) => axis.log
    ? Math.exp(Math.log(axis.from) + share * Math.log(axis.to / axis.from)) : axis.from + share * (axis.to - axis.from);

  function written(v) {
    if (v >= 1e15) return v.toExponential(2);
    for (const [scale, letter] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]])
      if (v >= scale) return (v / scale).toPrecision(4) + letter;
    return v.toPrecision(4);
  }

  function show(index, x, y) {
    const thing = found()[index];
    at = index;
    let text = thing.name;
    if (thing.path) {
      const { box: [l, t, r, b], x: across, y: up } = panel(x, y) ?? axes[0];
      text += `\n${across.name}: ${written(value(across, (x - l) / (r - l)))}`;
      text += `\n${up.name}: ${written(value(up, (b - y) / (b - t)))}`;
      trace.setAttribute("d", thing.path.getAttribute("d"));
      const clip = thing.path.closest("[clip-path]")?.getAttribute("clip-path");
      if (clip) trace.setAttribute("clip-path", clip);
      svg.append(trace);
    } else trace.remove();
    ring.setAttribute("cx", x);
    ring.setAttribute("cy", y);
    svg.append(ring);
    if (tip.textContent !== text) tip.textContent = text;
    tip.hidden = false;
    const box = svg.viewBox.baseVal, left = x / box.width > 0.5, above = y / box.height > 0.5;
    const place = { left: left ? "" : `${100 * x / box.width}%`, right: left ? `${100 - 100 * x / box.width}%` : "",
      top: above ? "" : `${100 * y / box.height}%`, bottom: above ? `${100 - 100 * y / box.height}%` : "" };
    Object.assign(tip.style, place);
  }

  function hide() {
    at = -1;
    tip.hidden = true;
    trace.remove();
    ring.remove();
  }

  function point(event) {
    const p = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const near = nearest(p.x, p.y);
    if (near) show(near.index, near.x, near.y);
    else hide();
  }

  function key(event) {
    const all = found(), keys = ["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "Home", "End", "Escape"];
    if (!keys.includes(event.key) || !all.length) return;
    event.preventDefault();
    if (event.key === "Escape") return hide();
    const before = at;
    if (event.key === "ArrowDown" || at < 0) at = (at + 1) % all.length;
    else if (event.key === "ArrowUp") at = (at - 1 + all.length) % all.length;
    const points = all[at].points.filter(([x, y]) => panel(x, y)), last = points.length - 1;
    if (at !== before) step = last;
    else if (event.key === "Home") step = 0;
    else if (event.key === "End") step = last;
    else step = Math.max(0, Math.min(last, step + (event.key === "ArrowLeft" ? -1 : 1) * Math.ceil((last + 1) / 25)));
    const [x, y] = points[step];
    show(at, x, y);
  }

  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerdown", point);
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("keydown", key);
  plot.addEventListener("blur", hide);
}

function sortable(table) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((h) => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => {
        const cell = row.cells[column], number = cell.dataset.value;
        return { row, empty: !cell.textContent, value: number === undefined ? cell.textContent : +number };
      });
      const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
      rows.sort((a, b) => a.empty - b.empty || (down ? -1 : 1) * order(a.value, b.value));
      body.append(...rows.map(({ row }) => row));
    });
  });
}
