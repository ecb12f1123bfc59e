"use strict";
// Layout and drawing of one graph: a node-link graph in, SVG text out. No DOM: the page runs this
// in the browser and the SVG export in an embedded interpreter, so both show the same picture.
//
// Two levels. Each open step is laid out by itself, with a port on its upper edge for every value
// that it reads and one on its lower edge for every value that it gives away. Then the steps and
// the values between them are laid out as boxes. Opening a step only moves boxes, and the cost
// stays near that of the boxes on show. (One compound layout of everything took dagre seconds at
// 150 nodes and minutes at 1,000.)
/* exported tracejitDraw */
const tracejitDraw = (() => {
  const CHAR = 7.25; // advance of the 12px monospaced label font
  const SMALL = 6.05; // and of the 10px one
  const HEADER = 26;
  const PART = 100; // steps on show at once
  const LARGEST = 160; // ops in a step that can be opened
  const FAN = 4; // users of an argument that is drawn once

  const escapes = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  const esc = (text) => String(text).replace(/[&<>"']/g, (c) => escapes[c]);
  const round = (x) => Math.round(x * 10) / 10;
  const clip = (text, length) =>
    text.length > length ? text.slice(0, length - 1) + "…" : text;

  // -- the graph, indexed ----------------------------------------------------------------------

  function index(graph) {
    const nodes = new Map(graph.nodes.map((n) => [n.id, n]));
    const steps = new Map(graph.graph.steps.map((s) => [s.id, s]));
    const members = new Map(graph.graph.steps.map((s) => [s.id, []]));
    for (const n of graph.nodes) if (n.step) members.get(n.step).push(n);
    const unit = (id) => nodes.get(id).step || id;
    const incoming = new Map(graph.nodes.map((n) => [n.id, []]));
    const outgoing = new Map(graph.nodes.map((n) => [n.id, []]));
    for (const e of graph.edges) {
      incoming.get(e.target).push(e);
      outgoing.get(e.source).push(e);
    }
    const indexed = { graph, nodes, steps, members, unit, incoming, outgoing };
    indexed.parts = partition(indexed);
    return indexed;
  }

  // Long schedules show in parts. A value outside all steps goes with its first user.
  function partition(g) {
    const part = new Map();
    for (const s of g.graph.graph.steps) part.set(s.id, Math.floor(s.number / PART));
    const free = g.graph.nodes.filter((n) => !n.step);
    for (const n of [...free].reverse()) {
      const users = g.outgoing.get(n.id).map((e) => part.get(g.unit(e.target)));
      const known = users.filter((p) => p !== undefined);
      if (known.length) part.set(n.id, Math.min(...known));
    }
    for (const n of free) {
      if (part.has(n.id)) continue;
      const from = g.incoming.get(n.id).map((e) => part.get(g.unit(e.source)));
      part.set(n.id, Math.max(0, ...from.filter((p) => p !== undefined)));
    }
    return part;
  }

  const partCount = (g) => Math.max(1, Math.ceil(g.graph.graph.steps.length / PART));
  const canOpen = (g, id) => {
    const kind = g.steps.get(id).kind;
    return (kind === "loop" || kind === "rows") && g.members.get(id).length <= LARGEST;
  };

  // -- sizes -----------------------------------------------------------------------------------

  function nodeSize(n) {
    const width = clip(n.label, 26).length * CHAR;
    if (n.kind === "constant" || n.kind === "index") return { width: width + 18, height: 20 };
    if (n.kind === "op") return { width: Math.max(44, width + 20), height: 26 };
    return { width: Math.max(52, width + 30), height: 26 };
  }

  function wrap(words, length, lines) {
    const out = [];
    for (const word of words) {
      const last = out.length ? out[out.length - 1] : null;
      if (last !== null && last.length + word.length + 1 <= length) out[out.length - 1] += " " + word;
      else out.push(word);
    }
    return out.length > lines ? [...out.slice(0, lines - 1), out[lines - 1] + " …"] : out;
  }

  const kinds = { loop: "loop kernel", rows: "row kernel", band: "band", matrix: "matrix kernel", NumPy: "NumPy" };
  const stepTitle = (s) => `${s.number + 1} ${kinds[s.kind]}`;

  function closedBox(s) {
    const lines = wrap(s.name.split(" "), 26, 3);
    if (s.detail) lines.push(s.detail);
    const longest = Math.max(stepTitle(s).length + 4, ...lines.map((l) => l.length));
    return { lines, width: longest * CHAR + 24, height: HEADER + 6 + 16 * lines.length + 4 };
  }

  // -- layout ----------------------------------------------------------------------------------

  function run(nodes, edges, options) {
    const g = new dagre.graphlib.Graph({ multigraph: true });
    const small = nodes.length <= 200;
    g.setGraph({
      rankdir: "TB", nodesep: 18, edgesep: 10, ranksep: 26,
      ranker: small ? "network-simplex" : "tight-tree", ...options,
    });
    for (const n of nodes) g.setNode(n.id, { width: n.width, height: n.height });
    edges.forEach((e, i) =>
      g.setEdge(e.from, e.to, {
        width: e.label ? e.label.length * SMALL + 6 : 0, height: e.label ? 12 : 0,
        labelpos: "c", weight: e.weight || 1, minlen: 1,
      }, String(i)));
    dagre.layout(g);
    return {
      width: g.graph().width, height: g.graph().height,
      node: (id) => g.node(id),
      edge: (i) => g.edge(edges[i].from, edges[i].to, String(i)),
    };
  }

  // One open step: its values, and ports on the upper and lower edge.
  function interior(g, id) {
    const members = g.members.get(id);
    const inside = new Set(members.map((n) => n.id));
    const boxes = members.map((n) => ({ id: n.id, ...nodeSize(n) }));
    const edges = [];
    const inputs = new Map();
    const outputs = new Set();
    for (const n of members) {
      for (const e of g.incoming.get(n.id)) {
        if (inside.has(e.source)) {
          const leaf = g.nodes.get(e.source).kind === "constant";
          edges.push({ from: e.source, to: e.target, label: leaf ? "" : e.type });
        } else {
          inputs.set(e.source, e.type);
          edges.push({ from: "in " + e.source, to: e.target, label: "" });
        }
      }
      if (g.outgoing.get(n.id).some((e) => !inside.has(e.target))) outputs.add(n.id);
    }
    const shown = edges.length;
    for (const source of inputs.keys()) {
      boxes.push({ id: "in " + source, width: 2, height: 1 });
      edges.push({ from: "top", to: "in " + source, weight: 40 });
    }
    for (const source of outputs) {
      boxes.push({ id: "out " + source, width: 2, height: 1 });
      edges.push({ from: source, to: "out " + source, out: true });
      edges.push({ from: "out " + source, to: "bottom", weight: 40 });
    }
    if (inputs.size) boxes.push({ id: "top", width: 1, height: 1 });
    if (outputs.size) boxes.push({ id: "bottom", width: 1, height: 1 });
    const laid = run(boxes, edges, { marginx: 14, marginy: 0, ranksep: 20 });
    // The ranks of "top" and "bottom" only hold the ports in line; they are cut off.
    const ys = (prefix, set) => [...set].map((s) => laid.node(prefix + s).y);
    const tops = members.map((n) => laid.node(n.id).y - nodeSize(n).height / 2 - 8);
    const from = Math.min(...ys("in ", inputs.keys()), ...tops);
    const to = outputs.size ? Math.max(...ys("out ", outputs)) : laid.height + 14;
    const title = stepTitle(g.steps.get(id)).length * CHAR + 54;
    const width = Math.max(laid.width, title);
    const dx = (width - laid.width) / 2;
    const shift = (p) => ({ x: p.x + dx, y: p.y - from + HEADER });
    return {
      width, height: to - from + HEADER,
      nodes: members.map((n) => ({ n, ...nodeSize(n), ...shift(laid.node(n.id)) })),
      edges: edges.flatMap((e, i) => {
        if (i >= shown && !e.out) return [];
        const d = laid.edge(i);
        const at = e.label ? shift(d) : null;
        const points = d.points.map(shift);
        // From the border on, and down to it: the ports themselves are not drawn.
        if (e.from.startsWith("in ")) points.splice(0, 1, { x: points[0].x, y: 0 }, { x: points[0].x, y: HEADER - 6 });
        if (e.out) points[points.length - 1].y = to - from + HEADER;
        return [{ points, label: e.label, at, arrow: !e.out, from: e.from }];
      }),
      input: (source) => laid.node("in " + source).x + dx,
      output: (source) => laid.node("out " + source).x + dx,
    };
  }

  function overview(g, options) {
    const open = new Set(options.open || []);
    const part = options.part || 0;
    const units = new Map();
    const at = (id) => g.parts.get(id);
    for (const [id, s] of g.steps) {
      if (at(id) !== part) continue;
      if (open.has(id) && canOpen(g, id)) {
        units.set(id, { id, step: s, open: true, ...cached(g, id) });
      } else units.set(id, { id, step: s, open: false, ...closedBox(s) });
    }
    for (const n of g.graph.nodes) {
      if (!n.step && at(n.id) === part) units.set(n.id, { id: n.id, node: n, ...nodeSize(n) });
    }
    const edges = new Map();
    for (const e of g.graph.edges) {
      let from = g.unit(e.source);
      let to = g.unit(e.target);
      if (from === to || (at(from) !== part && at(to) !== part)) continue;
      if (from === e.source && fan(g, from)) {
        if (at(to) !== part) continue;
        from = alias(g, units, from, to);
      } else if (at(from) !== part) from = stub(g, units, e.source, from, "from");
      if (at(to) !== part) to = stub(g, units, e.source, to, "to");
      const leaf = g.nodes.get(e.source).kind === "constant";
      edges.set(`${e.source} ${to}`, { from, to, source: e.source, label: leaf ? "" : e.type });
    }
    return { units, edges: [...edges.values()] };
  }

  // An argument or array with many users is drawn beside each of them: one set of weights for a
  // hundred layers would else be a fan across the whole picture.
  function fan(g, id) {
    const { kind } = g.nodes.get(id);
    if (kind !== "input" && kind !== "data") return false;
    return new Set(g.outgoing.get(id).map((e) => g.unit(e.target))).size > FAN;
  }

  function alias(g, units, id, to) {
    const node = g.nodes.get(id);
    const name = `alias ${id} ${to}`;
    units.delete(id);
    units.set(name, { id: name, node, ...nodeSize(node) });
    return name;
  }

  // A value that comes from, or goes to, another part.
  function stub(g, units, value, unit, way) {
    const id = `${way} ${value}`;
    if (!units.has(id)) {
      const step = g.steps.get(unit);
      const node = g.nodes.get(value);
      const name = step ? stepTitle(step) : node.label;
      const n = { id: value, kind: "stub", label: `${way} ${name}`, type: node.type };
      units.set(id, { id, node: n, part: g.parts.get(unit), ...nodeSize(n) });
    }
    return id;
  }

  function cached(g, id) {
    g.interiors = g.interiors || new Map();
    if (!g.interiors.has(id)) g.interiors.set(id, interior(g, id));
    return g.interiors.get(id);
  }

  // Ends of edges: at the ports of open steps, and spread along the edges of closed boxes.
  function attach(g, units, edges) {
    const ends = new Map([...units.keys()].map((id) => [id, { in: [], out: new Map() }]));
    for (const e of edges) {
      const points = e.points;
      ends.get(e.to).in.push({ e, x: points[points.length - 2].x });
      const out = ends.get(e.from).out;
      if (!out.has(e.source)) out.set(e.source, []);
      out.get(e.source).push({ e, x: points[1].x });
    }
    for (const [id, { in: arriving, out }] of ends) {
      const u = units.get(id);
      const left = u.x - u.width / 2;
      const spread = (i, count) => left + (u.width * (i + 1)) / (count + 1);
      arriving.sort((a, b) => a.x - b.x);
      arriving.forEach(({ e }, i) => {
        const x = u.open ? left + u.input(e.source) : spread(i, arriving.length);
        e.points[e.points.length - 1] = { x, y: u.y - u.height / 2 - (u.open ? 0 : 1) };
        e.arrow = !u.open;
      });
      const mean = (list) => list.reduce((sum, p) => sum + p.x, 0) / list.length;
      const leaving = [...out].sort((a, b) => mean(a[1]) - mean(b[1]));
      leaving.forEach(([source, list], i) => {
        const x = u.open ? left + u.output(source) : spread(i, leaving.length);
        for (const { e } of list) e.points[0] = { x, y: u.y + u.height / 2 };
      });
    }
  }

  // -- drawing ---------------------------------------------------------------------------------

  // A cubic B-spline over the bends of an edge, with vertical ends.
  function curve(points) {
    const first = points[0];
    const last = points[points.length - 1];
    const stub = Math.min(10, Math.max(0, (last.y - first.y) / 4));
    const p = [
      first, { x: first.x, y: first.y + stub }, ...points.slice(1, -1),
      { x: last.x, y: last.y - stub }, last,
    ];
    const mix = (a, b, t) => ({ x: a.x + (b.x - a.x) * t, y: a.y + (b.y - a.y) * t });
    const text = (q) => `${round(q.x)} ${round(q.y)}`;
    let path = `M${text(first)}`;
    for (let i = 0; i + 1 < p.length; i++) {
      const end = i + 2 < p.length
        ? mix(mix(p[i], p[i + 1], 2 / 3), mix(p[i + 1], p[i + 2], 1 / 3), 0.5)
        : last;
      path += `C${text(mix(p[i], p[i + 1], 1 / 3))} ${text(mix(p[i], p[i + 1], 2 / 3))} ${text(end)}`;
    }
    return path;
  }

  function drawEdge(e) {
    const arrow = e.arrow === false ? "" : ' marker-end="url(#tip)"';
    const path = `<path class="edge" data-from="${esc(e.from)}" d="${curve(e.points)}"${arrow}/>`;
    if (!e.label || !e.at) return { path, label: "" };
    const width = e.label.length * SMALL + 6;
    const { x, y } = e.at;
    return {
      path,
      label: `<g class="type"><rect x="${round(x - width / 2)}" y="${round(y - 7)}" width="${round(width)}"` +
        ` height="14" rx="3"/><text x="${round(x)}" y="${round(y + 3.5)}">${esc(e.label)}</text></g>`,
    };
  }

  function shape(n, x, y, w, h) {
    const [l, t, r, b] = [x - w / 2, y - h / 2, x + w / 2, y + h / 2].map(round);
    const rect = (rx, inset = 0) =>
      `<rect class="shape" x="${round(l + inset)}" y="${round(t + inset)}" width="${round(w - 2 * inset)}"` +
      ` height="${round(h - 2 * inset)}" rx="${rx}"/>`;
    switch (n.kind) {
      case "input": // a tag that points down
        return `<path class="shape" d="M${l} ${t}H${r}V${b - 8}L${round(x)} ${b}L${l} ${b - 8}Z"/>`;
      case "output":
        return rect(h / 2) + rect(h / 2 - 3, 3);
      case "data": // a sheet with a folded corner
        return `<path class="shape" d="M${l} ${t}H${r - 9}L${r} ${t + 9}V${b}H${l}Z"/>` +
          `<path class="shape" d="M${r - 9} ${t}V${t + 9}H${r}"/>`;
      case "index":
        return `<path class="shape" d="M${l + 7} ${t}H${r - 7}L${r} ${round(y)}L${r - 7} ${b}H${l + 7}L${l} ${round(y)}Z"/>`;
      case "constant":
        return rect(h / 2);
      default:
        return rect(5);
    }
  }

  function tooltip(n) {
    const lines = [`${n.number || ""} ${n.op || n.label} ${n.type}`.trim()];
    for (const [name, value] of Object.entries(n.attrs || {})) lines.push(`${name} = ${value}`);
    if (n.file) lines.push(`${n.file}:${n.line}`, n.source || "");
    return esc(lines.filter(Boolean).join("\n"));
  }

  function drawNode(n, x, y, w, h, part) {
    const jump = part === undefined ? "" : ` data-part="${part}"`;
    const dy = n.kind === "input" ? 1 : 4;
    return `<g class="node ${esc(n.kind)}" data-id="${esc(n.id)}"${jump} tabindex="0" role="button">` +
      `<title>${tooltip(n)}</title>${shape(n, x, y, w, h)}` +
      `<text x="${round(x)}" y="${round(y + dy)}">${esc(clip(n.label, 26))}</text></g>`;
  }

  function drawStep(g, u) {
    const s = u.step;
    const [l, t] = [round(u.x - u.width / 2), round(u.y - u.height / 2)];
    const colour = s.code === null ? "" : ` k${s.code % 8}`;
    const openable = canOpen(g, s.id);
    const sign = u.open ? "M-4 0H4" : "M-4 0H4M0 -4V4";
    const toggle = openable && s.ops > 0
      ? `<g class="toggle" data-toggle="${s.id}" tabindex="0" role="button" aria-label="${u.open ? "collapse" : "expand"} step ${s.number + 1}"` +
        ` transform="translate(${round(l + u.width - 15)} ${t + 13})"><circle r="8"/><path d="${sign}"/></g>`
      : "";
    const body = u.open ? "" : u.lines.map((line, i) =>
      `<text class="ops" x="${round(u.x)}" y="${t + HEADER + 14 + 16 * i}">${esc(line)}</text>`).join("");
    const under = `<g class="step ${esc(s.kind)}${colour}${u.open ? " open" : ""}" data-step="${s.id}" tabindex="0" role="button"` +
      ` aria-label="${esc(`step ${stepTitle(s)}: ${s.name}`)}"><title>${esc(`${stepTitle(s)}: ${s.name}`)}</title>` +
      `<rect class="box" x="${l}" y="${t}" width="${round(u.width)}" height="${round(u.height)}" rx="9"/>` +
      (s.kind === "matrix" ? `<rect class="inner" x="${l + 3}" y="${t + 3}" width="${round(u.width - 6)}" height="${round(u.height - 6)}" rx="7"/>` : "") +
      `${body}</g>`;
    const over = `<text class="title${u.open ? " halo" : ""}" x="${l + 11}" y="${t + 18}">${esc(stepTitle(s))}</text>${toggle}`;
    return { under, over };
  }

  function draw(g, options) {
    const { units, edges } = overview(g, options);
    const boxes = [...units.values()];
    const laid = run(boxes, edges, { marginx: 24, marginy: 24, ranksep: 30, nodesep: 26 });
    for (const u of boxes) Object.assign(u, { x: laid.node(u.id).x, y: laid.node(u.id).y });
    edges.forEach((e, i) => {
      const d = laid.edge(i);
      e.points = d.points.map((p) => ({ ...p }));
      e.at = e.label ? { x: d.x, y: d.y } : null;
    });
    attach(g, units, edges);
    const layers = { steps: [], edges: [], labels: [], nodes: [], titles: [] };
    const line = (e) => {
      const { path, label } = drawEdge(e);
      layers.edges.push(path);
      layers.labels.push(label);
    };
    for (const e of edges) line({ ...e, from: e.source });
    for (const u of boxes) {
      if (u.node) {
        layers.nodes.push(drawNode(u.node, u.x, u.y, u.width, u.height, u.part));
        continue;
      }
      const { under, over } = drawStep(g, u);
      layers.steps.push(under);
      layers.titles.push(over);
      if (!u.open) continue;
      const dx = u.x - u.width / 2;
      const dy = u.y - u.height / 2;
      const move = (p) => p && { x: p.x + dx, y: p.y + dy };
      for (const e of u.edges) line({ ...e, points: e.points.map(move), at: move(e.at), from: e.from.replace(/^in /, "") });
      for (const m of u.nodes) layers.nodes.push(drawNode(m.n, m.x + dx, m.y + dy, m.width, m.height));
    }
    const tip = '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"' +
      ' orient="auto"><path d="M0 .8L7 4L0 7.2Z"/></marker></defs>';
    const body = Object.values(layers).map((layer) => layer.join("")).join("");
    return { width: Math.ceil(laid.width), height: Math.ceil(laid.height), body: tip + body };
  }

  return { index, draw, canOpen, partCount, stepTitle, esc, PART };
})();
