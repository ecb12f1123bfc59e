"use strict";
// The page around the picture: choose, search, zoom, and the panel with what a step compiles to.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const graphs = data.graphs;
  const { esc, stepTitle, canOpen, partCount, PART } = tracejitDraw;
  const $ = (id) => document.getElementById(id);
  const canvas = $("canvas");
  const view = $("view");
  const state = { graph: 0, part: 0, open: new Set(), chosen: null, tab: "loops", query: "" };
  const indexed = new Map();
  let g = null;
  let size = { width: 1, height: 1 };
  let camera = { x: 0, y: 0, k: 1 };

  const OPEN_LIMIT = 120;
  const bytes = (n) => {
    const units = ["B", "KiB", "MiB", "GiB"];
    let i = 0;
    while (n >= 1024 && i < 3) { n /= 1024; i++; }
    return `${i ? n.toFixed(1) : n} ${units[i]}`;
  };
  const time = (s) => s < 1e-3 ? `${(s * 1e6).toFixed(1)} µs` : s < 1 ? `${(s * 1e3).toFixed(1)} ms` : `${s.toFixed(2)} s`;
  const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
  const fileName = (path) => path.split(/[\\/]/).pop();

  // -- graphs and parts ------------------------------------------------------------------------

  function load(number) {
    state.graph = number;
    state.part = 0;
    state.chosen = null;
    if (!indexed.has(number)) indexed.set(number, tracejitDraw.index(graphs[number]));
    g = indexed.get(number);
    const small = g.graph.nodes.length <= OPEN_LIMIT;
    state.open = new Set(small ? g.steps.keys() : []);
    $("graphs").value = String(number);
    const parts = partCount(g);
    $("parts").closest("label").hidden = parts === 1;
    const steps = g.graph.graph.steps.length;
    $("parts").innerHTML = Array.from({ length: parts }, (_, i) => {
      const to = Math.min(steps, (i + 1) * PART);
      return `<option value="${i}">${i + 1} of ${parts} (steps ${i * PART + 1} to ${to})</option>`;
    }).join("");
    facts();
    render(true);
    listSteps();
    showPanel();
  }

  function facts() {
    const f = g.graph.graph;
    const rows = [
      ["instructions", `${f.target}, ${f.vector_bits} bit`],
      ["steps", String(f.steps.length)],
      ["kernels", String(f.kernels)],
      ["arena", `${bytes(f.arena_bytes)} for ${bytes(f.intermediate_bytes)} of intermediates`],
      ["compile", time(f.compile_seconds)],
    ];
    if (f.calls) rows.push(["ran", `${f.calls}×, ${time(f.seconds)}`]);
    $("facts").innerHTML = rows.map(([k, v]) => `<div><dt>${k}</dt><dd>${esc(v)}</dd></div>`).join("");
  }

  function render(refit) {
    const picture = tracejitDraw.draw(g, { open: [...state.open], part: state.part });
    size = picture;
    view.innerHTML = picture.body;
    if (refit) fit();
    mark();
  }

  // -- zoom and pan ----------------------------------------------------------------------------

  const apply = () =>
    view.setAttribute("transform", `translate(${camera.x} ${camera.y}) scale(${camera.k})`);

  // Text stays readable: a large graph starts at its first step instead of shrinking to a thread.
  const READABLE = 0.62;
  function fit() {
    showAll();
    if (camera.k >= READABLE) return;
    const box = canvas.getBoundingClientRect();
    const wide = size.width * READABLE > box.width;
    camera = { k: READABLE, x: (box.width - size.width * READABLE) / 2, y: 8 };
    apply();
    const first = view.querySelector(".step") || view.querySelector(".node");
    if (!wide || !first) return;
    const at = first.getBoundingClientRect();
    pan(box.left + box.width / 2 - (at.left + at.width / 2), 0);
  }

  function showAll() {
    const box = canvas.getBoundingClientRect();
    const height = box.height - 44; // above the buttons
    const k = Math.min(box.width / size.width, height / size.height, 1.25);
    camera = { k, x: (box.width - size.width * k) / 2, y: (height - size.height * k) / 2 };
    apply();
  }

  function zoom(factor, x, y) {
    const box = canvas.getBoundingClientRect();
    const cx = x === undefined ? box.width / 2 : x - box.left;
    const cy = y === undefined ? box.height / 2 : y - box.top;
    const k = Math.min(6, Math.max(0.03, camera.k * factor));
    camera.x = cx - ((cx - camera.x) * k) / camera.k;
    camera.y = cy - ((cy - camera.y) * k) / camera.k;
    camera.k = k;
    apply();
  }

  function pan(dx, dy) {
    camera.x += dx;
    camera.y += dy;
    apply();
  }

  function centre(element) {
    const box = canvas.getBoundingClientRect();
    const at = element.getBoundingClientRect();
    const inside = at.left >= box.left && at.right <= box.right && at.top >= box.top && at.bottom <= box.bottom;
    if (inside) return;
    const y = at.height > box.height ? box.top + 20 - at.top : box.top + box.height / 2 - (at.top + at.height / 2);
    pan(box.left + box.width / 2 - (at.left + at.width / 2), y);
  }

  let drag = null;
  canvas.addEventListener("pointerdown", (event) => {
    drag = { x: event.clientX, y: event.clientY, moved: false };
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    if (!drag.moved && Math.hypot(dx, dy) < 4) return;
    if (!drag.moved) canvas.setPointerCapture(event.pointerId);
    drag.moved = true;
    canvas.classList.add("moving");
    pan(dx, dy);
    drag.x = event.clientX;
    drag.y = event.clientY;
  });
  const release = () => {
    canvas.classList.remove("moving");
    const moved = drag && drag.moved;
    drag = null;
    return moved;
  };
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.ctrlKey || event.metaKey || !event.shiftKey) {
      zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), event.clientX, event.clientY);
    } else pan(-event.deltaY, 0);
  }, { passive: false });
  canvas.addEventListener("pointerup", (event) => {
    const moved = release();
    if (!moved) hit(event.target);
  });

  // -- choosing --------------------------------------------------------------------------------

  function hit(target) {
    const toggle = target.closest("[data-toggle]");
    if (toggle) return flip(toggle.dataset.toggle);
    const stub = target.closest("[data-part]");
    if (stub) return turn(Number(stub.dataset.part), { node: stub.dataset.id });
    const node = target.closest("[data-id]");
    if (node) return choose({ node: node.dataset.id });
    const step = target.closest("[data-step]");
    choose(step ? { step: step.dataset.step } : null);
  }

  function flip(step) {
    const before = view.querySelector(`[data-step="${step}"]`).getBoundingClientRect();
    if (!state.open.delete(step)) state.open.add(step);
    render(false);
    const after = view.querySelector(`[data-step="${step}"]`).getBoundingClientRect();
    pan(before.left + before.width / 2 - after.left - after.width / 2, before.top - after.top);
    const again = view.querySelector(`[data-toggle="${step}"]`);
    if (again) again.focus({ preventScroll: true });
  }

  function turn(part, chosen) {
    state.part = part;
    $("parts").value = String(part);
    render(true);
    choose(chosen);
  }

  function choose(chosen) {
    const known = chosen && (chosen.step ? g.steps.has(chosen.step) : g.nodes.has(chosen.node));
    state.chosen = known ? chosen : null;
    if (known) {
      const unit = chosen.step || g.unit(chosen.node);
      const part = g.parts.get(unit);
      if (part !== state.part) return turn(part, chosen);
    }
    mark();
    showPanel();
    remember();
    const element = view.querySelector(".chosen");
    if (element) centre(element);
  }

  function mark() {
    for (const old of view.querySelectorAll(".chosen, .lit, .found, .holds")) {
      old.classList.remove("chosen", "lit", "found", "holds");
    }
    const { chosen } = state;
    if (chosen) {
      const find = (attribute, value) =>
        [...view.querySelectorAll(`[${attribute}]`)].filter((e) => e.getAttribute(attribute) === value);
      let elements = find("data-id", chosen.node);
      if (!elements.length) elements = find("data-step", chosen.step || g.unit(chosen.node));
      for (const element of elements) element.classList.add("chosen");
      if (chosen.node) {
        for (const edge of view.querySelectorAll(".edge")) {
          if (edge.dataset.from === chosen.node) edge.classList.add("lit");
        }
      }
    }
    const query = state.query;
    canvas.classList.toggle("searching", query !== "");
    if (query) {
      for (const node of view.querySelectorAll("[data-id]")) {
        if (matchesNode(g.nodes.get(node.dataset.id), query)) node.classList.add("found");
      }
      for (const step of view.querySelectorAll(".step")) {
        const inside = g.members.get(step.dataset.step).some((n) => matchesNode(n, query));
        if (step.classList.contains("open")) step.classList.toggle("holds", inside);
        else if (inside || matchesStep(g.steps.get(step.dataset.step), query)) step.classList.add("found");
      }
    }
    for (const button of $("steps").querySelectorAll("button")) {
      const id = chosen && (chosen.step || g.nodes.get(chosen.node).step);
      button.setAttribute("aria-current", String(button.dataset.step === id));
      if (button.dataset.step === id) button.scrollIntoView({ block: "nearest" });
    }
  }

  // -- steps and search ------------------------------------------------------------------------

  const text = new WeakMap();
  function searchable(thing, make) {
    if (!text.has(thing)) text.set(thing, make().toLowerCase());
    return text.get(thing);
  }
  const matchesNode = (n, query) => Boolean(n) && searchable(n, () =>
    [n.label, n.op, n.number, n.type, n.file ? `${n.file}:${n.line}` : "", n.source || "", ...Object.values(n.attrs || {})].join(" ")).includes(query);
  const matchesStep = (s, query) => searchable(s, () =>
    [stepTitle(s), s.name, s.text, ...s.lines.map((l) => `${l.file}:${l.line} ${l.source}`)].join(" ")).includes(query);

  function listSteps() {
    const query = state.query;
    const found = g.graph.graph.steps.filter((s) =>
      !query || matchesStep(s, query) || g.members.get(s.id).some((n) => matchesNode(n, query)));
    $("steps").innerHTML = found.map((s) =>
      `<li><button data-step="${esc(s.id)}"><i class="${s.code === null ? "none" : "k" + (s.code % 8)}"></i>` +
      `<b>${esc(stepTitle(s))}</b><span>${esc(s.name)}</span></button></li>`).join("")
      || `<li class="empty">${query ? "no step has this" : "nothing is computed"}</li>`;
    mark();
  }
  $("steps").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) choose({ step: button.dataset.step });
  });
  $("search").addEventListener("input", () => {
    state.query = $("search").value.trim().toLowerCase();
    listSteps();
  });
  $("search").addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      $("search").value = state.query = "";
      listSteps();
      canvas.focus();
    } else if (event.key === "Enter") {
      const first = view.querySelector(".found");
      if (first) hit(first);
    }
  });

  // -- the panel -------------------------------------------------------------------------------

  const place = (file, line, source) =>
    `<p class="mono soft">${esc(fileName(file))}:${line}</p>` + (source ? `<p class="mono">${esc(source)}</p>` : "");

  function link(id, number) {
    const n = g.nodes.get(id);
    const what = n.kind === "constant" ? n.label : `${n.number} ${n.kind === "op" || n.kind === "view" ? n.op : n.label}`;
    return `<button class="link" data-go="${esc(id)}">${esc(what)}</button> <span class="soft mono">${esc(n.type)}</span>`;
  }

  function nodeCard(n) {
    const attrs = Object.entries(n.attrs || {}).map(([k, v]) => `${esc(k)} = ${esc(v)}`).join("<br>");
    const list = (title, edges, end) => edges.length
      ? `<h3>${title}</h3><ul>${edges.map((e) => `<li>${link(e[end])}</li>`).join("")}</ul>` : "";
    const step = n.step ? g.steps.get(n.step) : null;
    const home = { view: "a view of stored memory: no step computes it", output: "a result", input: "an argument",
      data: "an array that the program holds", constant: "a constant inside its kernel", index: "the index along an axis" };
    return `<div class="card"><h2 class="mono">${esc(n.number)} ${esc(n.kind === "op" || n.kind === "view" ? n.op : n.label)}</h2>` +
      `<p class="mono">${esc(n.dtype)} [${n.shape.join(", ")}] · ${bytes(n.nbytes)}</p>` +
      (attrs ? `<p class="mono soft">${attrs}</p>` : "") +
      (step ? "" : `<p class="soft">${home[n.kind] || ""}</p>`) +
      (n.file ? place(n.file, n.line, n.source) : "") +
      list("operands", g.incoming.get(n.id), "source") + list("users", g.outgoing.get(n.id), "target") + "</div>";
  }

  const explained = {
    loop: "elementwise work in one loop nest", rows: "reductions and what follows them, row by row",
    band: "kernels that run one after the other for a block of rows at a time",
    matrix: "a blocked matrix product", NumPy: "no native kernel yet: runs through the NumPy reference",
  };

  function stepBody(s) {
    const f = g.graph.graph;
    const sum = (list) => list.reduce((total, b) => total + f.buffers[b].nbytes, 0);
    const code = s.code === null ? null : f.codes[s.code];
    const same = s.code === null ? 0 : f.steps.filter((o) => o.code === s.code).length - 1;
    const facts = [`${plural(s.ops, "op")} fused`, `reads ${bytes(sum(s.reads))}`, `writes ${bytes(sum(s.writes))}`];
    if (code) facts.push(`compiled for ${code.target} in ${time(code.seconds)}`);
    const tabs = [["loops", { NumPy: "Call", matrix: "Product" }[s.kind] || "Loop nest"]];
    if (code) tabs.push(["llvm", "LLVM IR"], ["assembly", "Assembly"]);
    tabs.push(["buffers", "Buffers"], ["ops", "Ops"], ["source", "Source"]);
    if (!tabs.some(([id]) => id === state.tab)) state.tab = "loops";
    return `<h2>${esc(stepTitle(s))}</h2><p class="mono">${esc(s.name)}${s.detail ? "<br>" + esc(s.detail) : ""}</p>` +
      `<p class="soft">${explained[s.kind]}</p><p class="soft">${facts.map(esc).join(" · ")}</p>` +
      (same ? `<p class="soft">${plural(same, "other step")} run${same === 1 ? "s" : ""} the same machine code</p>` : "") +
      `<div role="tablist">${tabs.map(([id, name]) =>
        `<button role="tab" data-tab="${id}" aria-selected="${id === state.tab}" tabindex="${id === state.tab ? 0 : -1}">${name}</button>`).join("")}</div>` +
      `<div role="tabpanel" data-panel="${esc(s.id)}"></div>`;
  }

  // Machine code is highlighted when its tab opens: a program may hold megabytes of it.
  const lazily = {
    loops: (s) => listing(s.text, "loops"),
    llvm: (s) => listing(data.texts[g.graph.graph.codes[s.code].text].llvm, "llvm"),
    assembly: (s) => listing(data.texts[g.graph.graph.codes[s.code].text].assembly, "assembly"),
    buffers: (s) => {
      const f = g.graph.graph;
      const rows = [...new Set([...s.reads, ...s.writes])].sort((a, b) => a - b).map((number) => {
        const b = f.buffers[number];
        const use = [s.reads.includes(number) ? "reads" : "", s.writes.includes(number) ? "writes" : ""].filter(Boolean).join(", ");
        return `<tr><td>b${number}</td><td>${use}</td><td>${esc(b.kind)}${b.offset === null ? "" : ` at ${b.offset}`}${b.host === null ? "" : ` in b${b.host}`}</td>` +
          `<td>${esc(b.type)}</td><td class="right">${bytes(b.nbytes)}</td></tr>`;
      });
      return `<table style="margin-top:10px"><thead><tr><th>buffer</th><th>use</th><th>kind</th><th>type</th><th class="right">bytes</th></tr></thead><tbody>${rows.join("")}</tbody></table>`;
    },
    ops: (s) => {
      const rows = g.members.get(s.id).filter((n) => n.kind !== "constant").map((n) =>
        `<tr><td><button class="link" data-go="${esc(n.id)}">${esc(n.number)} ${esc(n.op)}</button></td><td>${esc(n.type)}</td>` +
        `<td>${n.file ? esc(fileName(n.file)) + ":" + n.line : ""}</td></tr>`);
      return `<table style="margin-top:10px"><thead><tr><th>value</th><th>type</th><th>line</th></tr></thead><tbody>${rows.join("")}</tbody></table>`;
    },
    source: (s) => s.lines.length
      ? s.lines.map((l) => `<h3>${esc(fileName(l.file))}:${l.line}</h3><pre>${esc(l.source || "")}</pre>`).join("")
      : '<p class="soft" style="margin-top:10px">The source lines of these ops are not known.</p>',
  };

  const words = {
    loops: /(#.*$)|\b(for|in|parallel|vector|kernel|and|or)\b|(-?\b\d+(?:\.\d+)?(?:e[-+]?\d+)?\b)|\b([brt]\d+|row)\b/gm,
    llvm: /(;.*$)|\b(define|declare|internal|ret|br|label|switch|phi|load|store|getelementptr|inbounds|call|tail|select|icmp|fcmp|fadd|fsub|fmul|fdiv|fneg|add|sub|mul|udiv|sdiv|urem|srem|and|or|xor|shl|lshr|ashr|bitcast|zext|sext|trunc|fptrunc|fpext|sitofp|uitofp|fptosi|fptoui|shufflevector|extractelement|insertelement|to|align|nsw|nuw|x|void|ptr|i1|i8|i16|i32|i64|float|double|half)\b|(-?\b(?:0x[0-9A-Fa-f]+|\d+(?:\.\d+)?(?:e[-+]?\d+)?)\b)|([%@][\w.$"-]+)/gm,
    assembly: /((?:#|;).*$)|(^\s+[a-z][\w.]*)|([$]?-?\b(?:0x[0-9A-Fa-f]+|\d+)\b)|(%[a-z][\w]*|^[.\w$"]+:)/gm,
  };
  const LARGE = 400000;

  function listing(code, language) {
    let html = "";
    if (code.length > LARGE) html = esc(code);
    else {
      let last = 0;
      for (const m of code.matchAll(words[language])) {
        html += esc(code.slice(last, m.index));
        const kind = m[1] ? "c" : m[2] ? "w" : m[3] ? "v" : "n";
        html += `<span class="${kind}">${esc(m[0])}</span>`;
        last = m.index + m[0].length;
      }
      html += esc(code.slice(last));
    }
    return `<button class="copy" data-copy>copy</button><pre tabindex="0">${html}</pre>`;
  }

  function fillTab() {
    const panel = $("panel").querySelector("[data-panel]");
    if (panel) panel.innerHTML = lazily[state.tab](g.steps.get(panel.dataset.panel));
  }

  const sample = (kind, label) => {
    const shapes = { input: '<path class="shape" d="M2 3H74V20L38 27L2 20Z"/>', output: '<rect class="shape" x="2" y="3" width="72" height="24" rx="12"/><rect class="shape" x="5" y="6" width="66" height="18" rx="9"/>',
      constant: '<rect class="shape" x="2" y="5" width="72" height="20" rx="10"/>', data: '<path class="shape" d="M2 3H65L74 12V27H2Z"/>', index: '<path class="shape" d="M9 3H67L74 15L67 27H9L2 15Z"/>' };
    return `<svg class="tj" viewBox="0 0 76 30" aria-hidden="true"><g class="node ${kind}">${shapes[kind] || '<rect class="shape" x="2" y="3" width="72" height="24" rx="5"/>'}<text x="38" y="19">${label}</text></g></svg>`;
  };
  const boxSample = (kind) => `<svg class="tj" viewBox="0 0 76 30" aria-hidden="true"><g class="step ${kind}"><rect class="box" x="2" y="2" width="72" height="26" rx="8"/>` +
    `${kind.startsWith("matrix") ? '<rect class="inner" x="5" y="5" width="66" height="20" rx="6"/>' : ""}</g></svg>`;

  function overview() {
    const keys = [["/", "search"], ["Tab", "to the next value or step"], ["Enter", "details of what has the focus"],
      ["[ ]", "previous, next step"], ["o", "open or close the chosen step"], ["e c", "open, close all"], ["+ − 0", "zoom, show everything"], ["← ↑ ↓ →", "move"], ["Esc", "back to this"]];
    const marks = [[sample("input", "x"), "argument"], [sample("output", "output"), "result"], [sample("data", "data"), "array in the program"],
      [sample("constant", "0.5"), "constant"], [sample("index", "index"), "index along an axis"], [sample("view", "permute"), "view: costs nothing"],
      [boxSample("loop k0"), "kernel; steps with the same machine code share a colour"], [boxSample("matrix k1"), "matrix kernel"], [boxSample("NumPy"), "step through NumPy"]];
    const about = data.about ? `<p class="soft">${esc(data.about)}</p>` : "";
    return `<h2>${esc(g.graph.graph.title)}</h2>${about}<p class="soft">Choose a step or a value to see what it computes and the code it became.</p>` +
      `<h3>shapes</h3><div id="legend">${marks.map(([m, t]) => m + `<span>${t}</span>`).join("")}</div>` +
      `<h3>keys</h3><dl id="keys">${keys.map(([k, t]) => `<dt>${k.split(" ").map((x) => `<kbd>${x}</kbd>`).join(" ")}</dt><dd>${t}</dd>`).join("")}</dl>`;
  }

  function showPanel() {
    const { chosen } = state;
    const panel = $("panel");
    if (!chosen) panel.innerHTML = overview();
    else if (chosen.step) panel.innerHTML = stepBody(g.steps.get(chosen.step));
    else {
      const n = g.nodes.get(chosen.node);
      panel.innerHTML = nodeCard(n) + (n.step ? stepBody(g.steps.get(n.step)) : "");
    }
    panel.scrollTop = 0;
    fillTab();
  }

  function selectTab(id, focus) {
    state.tab = id;
    for (const tab of $("panel").querySelectorAll("[data-tab]")) {
      const on = tab.dataset.tab === id;
      tab.setAttribute("aria-selected", String(on));
      tab.tabIndex = on ? 0 : -1;
      if (on && focus) tab.focus();
    }
    fillTab();
    remember();
  }
  $("panel").addEventListener("click", (event) => {
    const tab = event.target.closest("[data-tab]");
    if (tab) return selectTab(tab.dataset.tab, false);
    const go = event.target.closest("[data-go]");
    if (go) return choose({ node: go.dataset.go });
    if (event.target.closest("[data-copy]") && navigator.clipboard) {
      navigator.clipboard.writeText($("panel").querySelector("[data-panel] pre").textContent);
    }
  });
  $("panel").addEventListener("keydown", (event) => {
    if (event.target.getAttribute("role") !== "tab") return;
    const tabs = [...$("panel").querySelectorAll("[data-tab]")];
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move) return;
    event.stopPropagation();
    selectTab(tabs[(tabs.indexOf(event.target) + move + tabs.length) % tabs.length].dataset.tab, true);
  });

  // -- keys, buttons, address ------------------------------------------------------------------

  function neighbour(move) {
    const steps = g.graph.graph.steps;
    if (!steps.length) return;
    const { chosen } = state;
    const id = chosen && (chosen.step || g.nodes.get(chosen.node).step);
    const at = id ? g.steps.get(id).number + move : move > 0 ? 0 : steps.length - 1;
    choose({ step: steps[(at + steps.length) % steps.length].id });
  }

  const actions = {
    in: () => zoom(1.25), out: () => zoom(0.8), fit: showAll,
    expand: () => { state.open = new Set([...g.steps.keys()].filter((id) => canOpen(g, id))); render(true); },
    collapse: () => { state.open = new Set(); render(true); },
  };
  $("tools").addEventListener("click", (event) => {
    const button = event.target.closest("[data-do]");
    if (button) actions[button.dataset.do]();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    const keys = {
      "/": () => $("search").focus(), "+": actions.in, "=": actions.in, "-": actions.out, "0": actions.fit,
      e: actions.expand, c: actions.collapse, "[": () => neighbour(-1), "]": () => neighbour(1),
      o: () => {
        const id = state.chosen && (state.chosen.step || g.nodes.get(state.chosen.node).step);
        if (id && canOpen(g, id)) { flip(id); mark(); }
      },
      Escape: () => choose(null),
      ArrowLeft: () => pan(60, 0), ArrowRight: () => pan(-60, 0), ArrowUp: () => pan(0, 60), ArrowDown: () => pan(0, -60),
    };
    const inPanel = $("panel").contains(event.target);
    if (event.key.startsWith("Arrow") && inPanel) return;
    if ((event.key === "Enter" || event.key === " ") && view.contains(event.target)) {
      event.preventDefault();
      hit(event.target);
    } else if (keys[event.key]) {
      event.preventDefault();
      keys[event.key]();
    }
  });

  // #graph=2&step=0&tab=llvm, #graph=2&node=n5, or #kernel-0: a link to what is on show.
  function remember() {
    const parts = graphs.length > 1 ? [`graph=${state.graph}`] : [];
    if (state.chosen && state.chosen.step) parts.push(`step=${g.steps.get(state.chosen.step).number}`);
    if (state.chosen && state.chosen.node) parts.push(`node=${encodeURIComponent(state.chosen.node)}`);
    if (state.chosen && state.tab !== "loops") parts.push(`tab=${state.tab}`);
    try { history.replaceState(null, "", parts.length ? "#" + parts.join("&") : location.pathname + location.search); } catch { /* some viewers refuse */ }
  }

  function follow() {
    const hash = location.hash.slice(1).replace(/^kernel-/, "step=");
    const wanted = new URLSearchParams(hash);
    const number = Number(wanted.get("graph") || 0);
    if (number !== state.graph || !g) load(graphs[number] ? number : 0);
    if (wanted.get("search")) {
      $("search").value = wanted.get("search");
      state.query = $("search").value.trim().toLowerCase();
      listSteps();
    }
    if (wanted.get("close")) actions.collapse();
    if (wanted.get("tab") in lazily) state.tab = wanted.get("tab");
    if (wanted.get("step") !== null) choose({ step: `s${wanted.get("step")}` });
    else if (wanted.get("node") !== null) choose({ node: wanted.get("node") });
  }

  $("title").textContent = data.title;
  $("graphs").closest("label").hidden = graphs.length === 1;
  $("graphs").innerHTML = graphs.map((graph, i) => `<option value="${i}">${i + 1}. ${esc(graph.graph.title)}</option>`).join("");
  $("graphs").addEventListener("change", (event) => { load(Number(event.target.value)); remember(); });
  $("parts").addEventListener("change", (event) => turn(Number(event.target.value), null));
  window.addEventListener("hashchange", follow);
  window.addEventListener("resize", () => {
    fit();
    const element = view.querySelector(".chosen");
    if (element) centre(element);
  });
  follow();
})();
