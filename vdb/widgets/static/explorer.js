// The page's half of `vdb.widgets.explorer`. The kernel sends trials as rows, and clips when they are asked for; what
// is brushed and pinned are traits. Sentences and names come from the kernel, so this file holds none.

const SILENT_MS = 8000; // Without a word from the kernel, although one was due
const NEAR = 14; // Pixels from the pointer within which a trial is meant
const MOST_ROWS = 100; // Of the table
const MOST_AXES = 12; // Parameters in parallel
const MOST_LINES = 100; // That are drawn while a brush is dragged: without a GPU a thousand take a tenth of a second
const ROOM = { left: 58, right: 14, top: 10, bottom: 26, lost: 18 }; // Around a plot; of the strip of trials without a place

const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

const number = (x) => typeof x === "number" && Number.isFinite(x);
const jitter = (n) => (((n * 2654435761) % 1000) / 1000 - .5) * .4; // Of a category, so that its trials lie apart

// Where values of an axis lie between 0 and 1. `kind`: trial, objective or parameter; `choices` where it has categories
const scaled = (axis, trials, log) => {
  const value = (trial) => {
    if (axis.kind === "trial") return trial.n;
    if (axis.kind === "objective") return trial.values[axis.index] ?? null;
    return trial.config[axis.parameter];
  };
  if (axis.choices) {
    const place = (trial, apart = 0) => {
      const at = axis.parameter in trial.config ? axis.choices.findIndex((c) => c === trial.config[axis.parameter]) : -1;
      return at < 0 ? null : (at + .5 + apart) / axis.choices.length;
    };
    const same = (at) => at;
    return { axis, value, place, at: same, back: same, ticks: axis.choices.map((c, i) => [(i + .5) / axis.choices.length, String(c)]) };
  }
  const there = trials.map(value).filter(number);
  const logs = log && there.every((x) => x > 0);
  const as = logs ? Math.log10 : (x) => x;
  let [low, high] = there.length ? [Math.min(...there), Math.max(...there)].map(as) : [0, 1];
  const edge = (high - low) * .04 || Math.abs(high) * .05 || .5;
  [low, high] = [low - edge, high + edge];
  const at = (x) => (as(x) - low) / (high - low);
  const back = (share) => (logs ? 10 ** (low + share * (high - low)) : low + share * (high - low));
  const place = (trial) => (number(value(trial)) ? at(value(trial)) : null);
  const ticks = (logs ? logTicks(low, high) : evenTicks(low, high)).map((x) => [at(x), x]);
  return { axis, value, place, at, back, ticks, ends: there.length ? [Math.min(...there), Math.max(...there)] : [] };
};

const evenTicks = (low, high) => {
  const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((k) => k >= rough);
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high; k += 1) found.push(+(k * step).toPrecision(12));
  return found;
};

const logTicks = (low, high) => {
  const found = [];
  for (let power = Math.floor(low); power <= high; power += 1)
    for (const k of high - low > 2.5 ? [1] : [1, 2, 5]) {
      const x = +(k * 10 ** power).toPrecision(12);
      if (Math.log10(x) >= low && Math.log10(x) <= high) found.push(x);
    }
  return found.length > 1 ? found : evenTicks(10 ** low, 10 ** high).filter((x) => x > 0);
};

// A canvas that is as large as its box, drawn at most once a frame
const plot = (box, draw) => {
  const canvas = element("canvas");
  box.append(canvas);
  let wanted = 0, width = 0, height = 0;
  const now = () => {
    wanted = 0;
    const g = canvas.getContext("2d");
    g.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    g.clearRect(0, 0, width, height);
    g.font = "11px system-ui, sans-serif";
    if (width > 60 && height > 40) draw(g, width, height);
  };
  const again = () => { wanted ||= requestAnimationFrame(now); };
  const fit = () => {
    [width, height] = [box.clientWidth, box.clientHeight];
    [canvas.width, canvas.height] = [width * devicePixelRatio, height * devicePixelRatio];
    again();
  };
  const watch = new ResizeObserver(fit);
  watch.observe(box);
  return { canvas, again, end: () => { watch.disconnect(); cancelAnimationFrame(wanted); } };
};

export default () => {
  const trials = new Map(); // By number; what all views of this page show
  const files = new Map(); // Thumbnails and clips, as addresses; null: asked for
  const views = new Set();
  let front = new Set(), chosen = null, volumes = [];
  let due = null; // Since when the kernel owes an answer

  const tell = (model, message) => {
    due ??= Date.now();
    try {
      model.send(message);
    } catch {
      due = 0; // There is no kernel
    }
  };

  const fetched = (model, kind, n) => {
    const key = `${kind} ${n} ${model.get("prompt")}`;
    if (!files.has(key)) {
      files.set(key, null);
      tell(model, { kind, trial: n, prompt: model.get("prompt") });
    }
    return files.get(key);
  };

  const initialize = ({ model }) => {
    model.on("msg:custom", (message, buffers) => {
      due = null;
      if (message.kind === "rows") {
        if (message.all) trials.clear();
        for (const row of message.rows) trials.set(row.n, row);
        [front, chosen, volumes] = [new Set(message.front), message.chosen, message.volumes];
        for (const view of views) view.came();
      } else if (message.kind === "thumb" || message.kind === "clip") {
        const kind = message.kind === "thumb" ? "image/jpeg" : "video/mp4";
        const url = buffers.length ? URL.createObjectURL(new Blob([buffers[0]], { type: kind })) : null;
        files.set(`${message.kind} ${message.trial} ${message.prompt}`, { url, why: message.why });
        for (const view of views) view.fetched(message.kind);
      }
    });
    tell(model, { kind: "rows" });
    return () => { for (const file of files.values()) if (file?.url) URL.revokeObjectURL(file.url); };
  };

  const render = ({ model, el }) => {
    const words = model.get("words");
    let written;
    try { written = new Intl.NumberFormat(words.locale.replace("_", "-"), { maximumSignificantDigits: 4 }); } catch { written = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 }); }
    const text = (x) => (typeof x === "number" ? written.format(x) : String(x));
    const colour = (name) => getComputedStyle(el).getPropertyValue(`--${name}`).trim();
    const ask = (message) => tell(model, message);
    const list = () => [...trials.values()];
    const axes = () => model.get("axes");
    const axisOf = (name) => axes().find((a) => a.name === name) ?? axes()[0];

    // What is brushed: here a rectangle of the scatter and ranges of the parallel axes, everywhere their trials
    let rectangle = null, hovered = null, sorted = ["front", 1], told = 0;
    const ranges = new Map();
    const brushes = () => rectangle !== null || ranges.size > 0;
    const selected = () => new Set(model.get("selected"));

    // ---- The frame
    const button = (name, title) => element("button", { type: "button", class: `vdb-tune-${name}`, ...(title ? { title } : {}) }, words[name]);
    const [play, pause, stop] = ["play", "pause", "stop"].map((name) => button(name));
    for (const [made, kind] of [[play, "play"], [pause, "pause"], [stop, "stop"]]) made.addEventListener("click", () => ask({ kind }));
    const bar = element("progress", { max: 1, "aria-label": words.progress });
    const status = element("p", { class: "vdb-tune-status", role: "status" });
    const head = element("div", { class: "vdb-tune-row" }, play, pause, stop, bar, status);
    const chooser = (name, label) => {
      const made = element("select", { class: `vdb-tune-${name}` });
      made.addEventListener("change", () => { rectangle = null; set(name, made.value); brushed(true); });
      const log = element("input", { type: "checkbox", class: `vdb-tune-log-${name}` });
      log.addEventListener("change", () => { rectangle = null; set(`log_${name}`, log.checked); brushed(true); });
      return { made, log, row: element("span", { class: "vdb-tune-axis" }, element("label", {}, label, made), element("label", { class: "vdb-tune-log" }, log, words.log)) };
    };
    const [x, y] = [chooser("x", words.x), chooser("y", words.y)];
    const clear = button("clear");
    clear.addEventListener("click", () => { rectangle = null; ranges.clear(); brushed(true); });
    const count = element("span", { class: "vdb-tune-count" });
    const choices = element("div", { class: "vdb-tune-row" }, x.row, y.row, clear, count);
    const box = (name, label) => element("div", { class: `vdb-tune-plot vdb-tune-${name}`, role: "img", "aria-label": label });
    const [scatterBox, historyBox, parallelBox] = [box("scatter", words.scatter), box("history", words.history), box("parallel", words.parallel)];
    const tip = element("div", { class: "vdb-tune-tip", hidden: "" });
    const pins = element("div", { class: "vdb-tune-pins" });
    const prompt = element("select", { class: "vdb-tune-prompt" });
    prompt.addEventListener("change", () => set("prompt", prompt.value));
    const prompts = element("label", {}, words.prompt, prompt);
    const form = element("form", { class: "vdb-tune-try" });
    const table = element("table", { class: "vdb-tune-table" });
    const more = element("p", { class: "vdb-tune-more" });
    const part = (name, ...children) => element("section", {}, element("h4", {}, name), ...children);
    el.classList.add("vdb-tune");
    el.setAttribute("role", "group");
    el.setAttribute("aria-label", words.title);
    el.dataset.lmSuppressShortcuts = "true"; // Keys are the widget's, not the notebook's
    for (const name of ["keydown", "keypress", "keyup"]) el.addEventListener(name, (event) => event.stopPropagation());
    el.append(head, choices, element("div", { class: "vdb-tune-plots" }, scatterBox, historyBox), parallelBox,
      part(words.pinned, element("div", { class: "vdb-tune-row" }, prompts), pins), part(words.try, form), part(words.table, element("div", { class: "vdb-tune-scroll" }, table), more), tip);

    const set = (name, value) => { model.set(name, value); model.save_changes(); };
    const toggle = (n) => {
      const there = model.get("pinned");
      set("pinned", there.includes(n) ? there.filter((k) => k !== n) : [...there, n].slice(-model.get("most_pinned")));
    };

    // ---- What is drawn of a trial
    const style = (trial) => {
      const top = front.has(trial.n), bad = trial.state === "over" || trial.state === "failed";
      return { colour: top ? "front" : bad ? "over" : "pale", shape: trial.origin === "default" ? "square" : trial.state === "dropped" ? "down" : bad ? "cross" : "dot", size: top ? 4.5 : 3 };
    };
    const mark = (g, shape, px, py, r) => {
      if (shape === "square") g.rect(px - r, py - r, 2 * r, 2 * r);
      else if (shape === "down") { g.moveTo(px - r, py - r); g.lineTo(px + r, py - r); g.lineTo(px, py + r); g.closePath(); }
      else if (shape === "cross") { g.moveTo(px - r, py - r); g.lineTo(px + r, py + r); g.moveTo(px + r, py - r); g.lineTo(px - r, py + r); }
      else { g.moveTo(px + r, py); g.arc(px, py, r, 0, 7); }
    };
    const label = (g, words_, px, py, align, baseline = "middle") => {
      [g.textAlign, g.textBaseline, g.fillStyle] = [align, baseline, colour("faint")];
      g.fillText(words_, px, py);
    };
    const frame = (g, sx, sy, w, h) => {
      g.strokeStyle = colour("line");
      g.lineWidth = 1;
      g.beginPath();
      g.moveTo(ROOM.left, ROOM.top); g.lineTo(ROOM.left, h - ROOM.bottom - ROOM.lost); g.lineTo(w - ROOM.right, h - ROOM.bottom - ROOM.lost);
      g.stroke();
      for (const [at, value] of sx.ticks) label(g, text(value), ROOM.left + at * (w - ROOM.left - ROOM.right), h - ROOM.bottom - ROOM.lost + 5, "center", "top");
      for (const [at, value] of sy.ticks) label(g, shorter(g, text(value), ROOM.left - 10), ROOM.left - 5, h - ROOM.bottom - ROOM.lost - at * (h - ROOM.bottom - ROOM.lost - ROOM.top), "right");
    };
    const shorter = (g, words_, width) => {
      let short = words_;
      while (short.length > 1 && g.measureText(short).width > width) short = short.slice(0, -1);
      return short === words_ ? words_ : `${short.slice(0, -1)}…`;
    };

    // ---- Scatter
    let points = []; // [number, x, y] of what was drawn
    const scatter = plot(scatterBox, (g, w, h) => {
      if (!axes().length) return; // The search has not begun
      const shown = list(), on = selected(), some = on.size > 0 || brushes();
      const [sx, sy] = [x, y].map((c, i) => scaled(axisOf(model.get(i ? "y" : "x")), shown, c.log.checked));
      const [left, right, top, bottom] = [ROOM.left, w - ROOM.right, ROOM.top, h - ROOM.bottom - ROOM.lost];
      scatter.scales = { sx, sy, left, right, top, bottom };
      frame(g, sx, sy, w, h);
      points = [];
      const groups = new Map(), lost = [];
      for (const trial of shown) {
        if (trial.state === "begun") continue;
        const [px, py] = [sx.place(trial, jitter(trial.n)), sy.place(trial, jitter(trial.n + 7))];
        if (px === null || py === null) { lost.push([trial, px]); continue; }
        const s = style(trial), faint = some && !on.has(trial.n);
        const key = `${s.colour} ${s.shape} ${faint}`;
        if (!groups.has(key)) groups.set(key, { ...s, faint, at: [] });
        const at = [trial.n, left + px * (right - left), bottom - py * (bottom - top), trial];
        groups.get(key).at.push(at);
        points.push(at);
      }
      const order = [...groups.values()].sort((a, b) => (b.faint - a.faint) || (a.colour === "front") - (b.colour === "front"));
      for (const group of order) {
        g.globalAlpha = group.faint ? .12 : group.colour === "front" ? 1 : .55;
        g.strokeStyle = g.fillStyle = colour(group.colour);
        g.lineWidth = 1;
        g.beginPath();
        if (!group.faint && !dragging) for (const [, px, py, trial] of group.at) errorBars(g, trial, sx, sy, px, py, left, right, top, bottom);
        g.stroke();
        g.lineWidth = group.shape === "cross" ? 1.6 : 1;
        g.beginPath();
        for (const [, px, py] of group.at) mark(g, group.shape, px, py, group.size);
        if (group.shape === "cross") g.stroke(); else g.fill();
      }
      g.globalAlpha = 1;
      strip(g, lost, sx, left, right, bottom + ROOM.bottom - 2, on, some);
      ring(g, points);
      if (rectangle) {
        const [a, b] = [0, 1].map((k) => [left + sx.at(rectangle.x[k]) * (right - left), bottom - sy.at(rectangle.y[k]) * (bottom - top)]);
        g.strokeStyle = colour("accent");
        g.setLineDash([4, 3]);
        g.strokeRect(Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.abs(a[0] - b[0]), Math.abs(a[1] - b[1]));
        g.setLineDash([]);
      }
    });
    const errorBars = (g, trial, sx, sy, px, py, left, right, top, bottom) => {
      for (const [scale, across] of [[sx, true], [sy, false]]) {
        const error = scale.axis.kind === "objective" ? trial.errors[scale.axis.index] : null;
        if (!number(error) || !error) continue;
        const ends = [-1, 1].map((sign) => scale.at(Math.max(scale.value(trial) + sign * error, scale.value(trial) / 1e3)));
        const [a, b] = ends.map((at) => (across ? left + at * (right - left) : bottom - at * (bottom - top)));
        if (across) { g.moveTo(Math.max(a, left), py); g.lineTo(Math.min(b, right), py); }
        else { g.moveTo(px, Math.min(a, bottom)); g.lineTo(px, Math.max(b, top)); }
      }
    };
    // Trials that failed have no value: they lie under the plot, at their place across where they have one
    const strip = (g, lost, sx, left, right, py, on, some) => {
      if (!lost.length) return;
      label(g, words.failed, left - 5, py + 8, "right");
      g.strokeStyle = colour("over");
      g.lineWidth = 1.4;
      lost.forEach(([trial, px], i) => {
        const at = [trial.n, left + (px ?? (i + .5) / lost.length) * (right - left), py + 8, trial];
        g.globalAlpha = some && !on.has(trial.n) ? .2 : .8;
        g.beginPath();
        mark(g, "cross", at[1], at[2], 3);
        g.stroke();
        points.push(at);
      });
      g.globalAlpha = 1;
    };
    const ring = (g, there) => {
      for (const [n, px, py] of there) {
        const size = n === hovered ? 8 : model.get("pinned").includes(n) ? 7 : n === chosen ? 10 : 0;
        if (!size) continue;
        g.strokeStyle = colour(n === chosen && n !== hovered ? "ink" : "accent");
        g.lineWidth = n === hovered ? 2 : 1.5;
        g.beginPath();
        g.arc(px, py, size, 0, 7);
        g.stroke();
      }
    };

    // ---- The share of what can be reached, against trials
    const history = plot(historyBox, (g, w, h) => {
      const last = Math.max(1, ...trials.keys());
      const sx = { ticks: evenTicks(0, last).filter((v) => v % 1 === 0).map((v) => [v / last, v]) };
      const sy = { ticks: [0, .25, .5, .75, 1].map((v) => [v, `${written.format(100 * v)} %`]) };
      frame(g, sx, sy, w, h);
      const [left, right, top, bottom] = [ROOM.left, w - ROOM.right, ROOM.top, h - ROOM.bottom - ROOM.lost];
      label(g, words.volume, (left + right) / 2, h - 4, "center", "bottom");
      const place = ([n, v]) => [left + (n / last) * (right - left), bottom - v * (bottom - top)];
      g.strokeStyle = colour("front");
      g.lineWidth = 1.6;
      g.beginPath();
      let before = null;
      for (const each of volumes) {
        const [px, py] = place(each);
        if (before === null) g.moveTo(px, py); else { g.lineTo(px, before); g.lineTo(px, py); }
        before = py;
      }
      g.stroke();
      const found = volumes.find(([n]) => n === hovered);
      if (found) ring(g, [[hovered, ...place(found)]]);
    });

    // ---- Parallel axes: lines that stay below, those that are meant above
    const across = () => {
      const shown = list(), varying = (a) => a.kind === "objective" || new Set(shown.map((trial) => JSON.stringify(trial.config[a.parameter]))).size > 1;
      const parameters = axes().filter((a) => a.kind === "parameter" && varying(a)).slice(0, MOST_AXES);
      return [...parameters, ...axes().filter((a) => a.kind === "objective")].map((a) => scaled(a, shown, a.log));
    };
    let lanes = [], lines = [], dimmed = false, dragging = false;
    const EDGE = { left: 40, right: 40, top: 46, bottom: 22 };
    const laneX = (i, w) => EDGE.left + (lanes.length > 1 ? (i * (w - EDGE.left - EDGE.right)) / (lanes.length - 1) : (w - EDGE.left - EDGE.right) / 2);
    const layLines = (w, h) => {
      lanes = across();
      lines = list().filter((trial) => trial.state !== "begun").map((trial) => [trial, lanes.map((lane, i) => {
        const at = lane.place(trial, jitter(trial.n) / 2);
        return at === null ? null : [laneX(i, w), h - EDGE.bottom - at * (h - EDGE.top - EDGE.bottom)];
      })]);
    };
    // Some lines a path: one path of thousands takes a browser longer than its parts
    const strokeAll = (g, drawn) => {
      for (let i = 0; i < drawn.length; i += 40) {
        g.beginPath();
        for (const line of drawn.slice(i, i + 40)) trace(g, line);
        g.stroke();
      }
    };
    const trace = (g, line) => {
      let pen = false;
      for (const at of line) {
        if (at === null) { pen = false; continue; }
        if (pen) g.lineTo(...at); else g.moveTo(...at);
        pen = true;
      }
    };
    const below = plot(parallelBox, (g, w, h) => {
      layLines(w, h);
      const some = dimmed = selected().size > 0 || brushes();
      for (const [name, alpha, is] of [["pale", .35, (s) => s.colour === "pale"], ["over", .35, (s) => s.colour === "over"], ["front", .9, (s) => s.colour === "front"]]) {
        g.globalAlpha = some ? Math.min(alpha, .08) : lines.length > 300 ? alpha / 2 : alpha;
        g.strokeStyle = colour(name);
        g.lineWidth = name === "front" ? 1.5 : 1;
        strokeAll(g, lines.filter(([trial]) => is(style(trial))).map(([, line]) => line));
      }
      g.globalAlpha = 1;
      lanes.forEach((lane, i) => {
        const px = laneX(i, w), room = (w - EDGE.left - EDGE.right) / Math.max(1, lanes.length - 1) - 6;
        g.strokeStyle = colour("line");
        g.beginPath(); g.moveTo(px, EDGE.top); g.lineTo(px, h - EDGE.bottom); g.stroke();
        const align = i === 0 ? "left" : i === lanes.length - 1 ? "right" : "center", tx = i === 0 ? 4 : i === lanes.length - 1 ? w - 4 : px;
        label(g, shorter(g, lane.axis.label, Math.max(room, 60)), tx, i % 2 && lanes.length > 6 ? 8 : 22, align);
        if (lane.axis.choices) for (const [at, value] of lane.ticks) label(g, shorter(g, text(value), room - 8), px + 4, h - EDGE.bottom - at * (h - EDGE.top - EDGE.bottom), "left");
        else if (lane.ends.length) {
          const y0 = h - EDGE.bottom + 4;
          label(g, text(lane.ends[0]), px, y0, "center", "top");
          label(g, text(lane.ends[1]), px, EDGE.top - 3, "center", "bottom");
        }
      });
    });
    const above = plot(parallelBox, (g, w, h) => {
      const on = selected();
      for (const [names, width, ink, alpha] of [[on, 1.2, "accent", on.size > 200 ? .35 : .8], [new Set(model.get("pinned")), 2, "accent", 1], [new Set([hovered]), 2.5, "ink", 1]]) {
        if (!names.size) continue;
        [g.strokeStyle, g.lineWidth, g.globalAlpha] = [colour(ink), width, alpha];
        const meant = lines.filter(([trial]) => names.has(trial.n)), every = dragging ? Math.ceil(meant.length / MOST_LINES) : 1;
        strokeAll(g, meant.filter((_, i) => i % every === 0).map(([, line]) => line));
      }
      g.globalAlpha = .25;
      g.fillStyle = colour("accent");
      for (const [name, ends] of ranges) {
        const i = lanes.findIndex((lane) => lane.axis.name === name);
        const [a, b] = i < 0 ? [0, 0] : ends.map(lanes[i].at);
        if (i >= 0) g.fillRect(laneX(i, w) - 7, h - EDGE.bottom - Math.max(a, b) * (h - EDGE.top - EDGE.bottom), 14, Math.abs(b - a) * (h - EDGE.top - EDGE.bottom));
      }
      g.globalAlpha = 1;
    });
    const redraw = () => [scatter, history, below, above].forEach((p) => p.again());

    // ---- Brushing
    const matching = () => {
      const scales = scatter.scales, inside = (v, a, b) => v !== null && v >= Math.min(a, b) && v <= Math.max(a, b);
      return list().filter((trial) => {
        if (trial.state === "begun") return false;
        if (rectangle && !(inside(scales.sx.place(trial, jitter(trial.n)), ...rectangle.x.map(scales.sx.at)) && inside(scales.sy.place(trial, jitter(trial.n + 7)), ...rectangle.y.map(scales.sy.at)))) return false;
        return lanes.every((lane) => !ranges.has(lane.axis.name) || inside(lane.place(trial, jitter(trial.n) / 2), ...ranges.get(lane.axis.name).map(lane.at)));
      }).map((trial) => trial.n);
    };
    let ours = "[]"; // What this view said is selected; another value came from elsewhere, and its brushes are gone
    const brushed = (over) => {
      dragging = !over;
      const found = brushes() ? matching() : [];
      ours = JSON.stringify(found);
      model.set("selected", found);
      if (over || Date.now() - told > 150) {
        told = Date.now();
        model.save_changes();
      }
      if (over) lay();
      counted();
      [scatter, above].forEach((p) => p.again());
      if (dimmed !== (found.length > 0 || brushes())) below.again();
    };
    const at = (event, target) => {
      const bounds = target.getBoundingClientRect();
      return [event.clientX - bounds.left, event.clientY - bounds.top];
    };
    // From a press to its release: `drag` is told of both places, `click` where it did not move
    const pressed = (target, drag, click) => target.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      const from = at(event, target);
      let moved = false;
      const move = (e) => {
        const to = at(e, target);
        moved ||= Math.hypot(to[0] - from[0], to[1] - from[1]) > 4;
        if (moved) drag(from, to, false);
      };
      const up = (e) => {
        for (const [name, act] of [["pointermove", move], ["pointerup", up], ["pointercancel", up]]) target.removeEventListener(name, act);
        if (moved) drag(from, at(e, target), true); else click(from);
      };
      target.setPointerCapture(event.pointerId);
      for (const [name, act] of [["pointermove", move], ["pointerup", up], ["pointercancel", up]]) target.addEventListener(name, act);
      hover(null);
    });
    pressed(scatterBox, (from, to, over) => {
      const { sx, sy, left, right, top, bottom } = scatter.scales;
      const place = ([px, py]) => [Math.min(1, Math.max(0, (px - left) / (right - left))), Math.min(1, Math.max(0, (bottom - py) / (bottom - top)))];
      const [[x0, y0], [x1, y1]] = [place(from), place(to)];
      rectangle = { x: [sx.back(x0), sx.back(x1)], y: [sy.back(y0), sy.back(y1)] }; // In values: axes grow with a search
      brushed(over);
    }, (from) => {
      const n = nearestPoint(from);
      if (n !== null) toggle(n);
      else if (rectangle) { rectangle = null; brushed(true); }
    });
    const laneAt = (px) => lanes.map((lane, i) => [Math.abs(laneX(i, parallelBox.clientWidth) - px), lane]).sort((a, b) => a[0] - b[0])[0];
    const height = (py) => Math.min(1, Math.max(0, (parallelBox.clientHeight - EDGE.bottom - py) / (parallelBox.clientHeight - EDGE.top - EDGE.bottom)));
    pressed(parallelBox, (from, to, over) => {
      const [apart, lane] = laneAt(from[0]) ?? [Infinity];
      if (apart > 25) return;
      ranges.set(lane.axis.name, [height(from[1]), height(to[1])].map(lane.back));
      brushed(over);
    }, (from) => {
      const [apart, lane] = laneAt(from[0]) ?? [Infinity];
      if (apart < 10 && ranges.has(lane.axis.name)) { ranges.delete(lane.axis.name); brushed(true); return; }
      const n = nearestLine(from);
      if (n !== null) toggle(n);
    });

    // ---- Hovering
    const nearestPoint = ([px, py]) => {
      let best = null, least = NEAR;
      for (const [n, qx, qy] of points) {
        const apart = Math.hypot(px - qx, py - qy);
        if (apart < least) [best, least] = [n, apart];
      }
      return best;
    };
    const nearestLine = ([px, py]) => {
      const on = selected();
      let best = null, least = NEAR / 2;
      for (const [trial, line] of lines) {
        if (on.size && !on.has(trial.n)) continue;
        for (let i = 0; i + 1 < line.length; i += 1) {
          const [a, b] = [line[i], line[i + 1]];
          if (a === null || b === null || px < a[0] || px > b[0]) continue;
          const apart = Math.abs(a[1] + ((b[1] - a[1]) * (px - a[0])) / (b[0] - a[0]) - py);
          if (apart < least) [best, least] = [trial.n, apart];
        }
      }
      return best;
    };
    const facts = (trial) => {
      const rows = axes().filter((a) => a.kind === "objective").map((a) => element("div", {}, `${a.label}: ${trial.told[a.index] ?? "–"}`));
      const why = trial.reason ? [element("div", { class: "vdb-tune-why" }, trial.reason)] : [];
      return [element("b", {}, `${words.trial} ${text(trial.n)} · ${words.states[trial.state]}`), element("div", {}, trial.text), ...rows, ...why];
    };
    let waiting = null;
    const hover = (n, place) => {
      if (n === hovered) return;
      hovered = n;
      clearTimeout(waiting);
      tip.hidden = n === null;
      if (n !== null) {
        tip.replaceChildren(...facts(trials.get(n)), element("div", { class: "vdb-tune-thumb" }));
        const bounds = el.getBoundingClientRect();
        const inline = place[0] - bounds.left > bounds.width / 2;
        tip.style.insetBlockStart = `${place[1] - bounds.top + 14}px`;
        tip.style.left = inline ? "auto" : `${place[0] - bounds.left + 14}px`;
        tip.style.right = inline ? `${bounds.right - place[0] + 14}px` : "auto";
        waiting = setTimeout(thumb, 120);
      }
      [scatter, history, above].forEach((p) => p.again());
    };
    const thumb = () => {
      if (hovered === null || !["ok", "over", "dropped"].includes(trials.get(hovered).state)) return;
      const file = fetched(model, "thumb", hovered);
      const place = tip.querySelector(".vdb-tune-thumb");
      if (file?.url) place.replaceChildren(element("img", { src: file.url, alt: words.frames }));
      else if (file) place.textContent = file.why;
    };
    scatterBox.addEventListener("pointermove", (event) => { if (!event.buttons) hover(nearestPoint(at(event, scatterBox)), [event.clientX, event.clientY]); });
    parallelBox.addEventListener("pointermove", (event) => { if (!event.buttons) hover(nearestLine(at(event, parallelBox)), [event.clientX, event.clientY]); });
    for (const target of [scatterBox, parallelBox]) target.addEventListener("pointerleave", () => hover(null));

    // ---- Pinned trials
    const cards = new Map();
    const showPins = () => {
      const wanted = model.get("pinned").filter((n) => trials.has(n));
      for (const [n, card] of cards) if (!wanted.includes(n)) { card.made.remove(); cards.delete(n); }
      for (const n of wanted) {
        if (!cards.has(n)) {
          const close = element("button", { type: "button", class: "vdb-tune-unpin", "aria-label": `${words.unpin} ${text(n)}` }, "×");
          close.addEventListener("click", () => toggle(n));
          const use = element("button", { type: "button", class: "vdb-tune-use" }, words.use);
          use.addEventListener("click", () => fill(trials.get(n)));
          const screen = element("div", { class: "vdb-tune-screen" }), said = element("div", { class: "vdb-tune-facts" });
          cards.set(n, { made: element("article", { class: "vdb-tune-pin", "data-trial": n }, close, screen, said, use), screen, said });
          pins.append(cards.get(n).made);
        }
        const { screen, said } = cards.get(n), trial = trials.get(n);
        said.replaceChildren(...facts(trial));
        if (!["ok", "over", "dropped"].includes(trial.state)) { screen.textContent = words.no_clip; continue; }
        const file = fetched(model, "clip", n);
        if (file?.url && screen.firstChild?.src !== file.url) {
          const video = element("video", { src: file.url, loop: "", playsinline: "", controls: "", "aria-label": `${words.trial} ${text(n)}` });
          video.muted = video.autoplay = true;
          video.addEventListener("loadeddata", () => { for (const other of pins.querySelectorAll("video")) other.currentTime = 0; });
          screen.replaceChildren(video);
        } else if (!file?.url) screen.textContent = file ? file.why : words.loading;
      }
      pins.dataset.empty = wanted.length ? "" : words.pin_hint;
      prompts.hidden = !wanted.length;
      redraw();
    };

    // ---- A point to try
    const inputs = new Map();
    const layForm = () => {
      const parameters = axes().filter((a) => a.kind === "parameter");
      inputs.clear();
      const rows = parameters.map((a) => {
        const made = a.choices
          ? element("select", {}, element("option", { value: "" }, "–"), ...a.choices.map((c, i) => element("option", { value: i }, String(c))))
          : element("input", { type: "number", min: a.low, max: a.high, step: a.whole ? 1 : "any" });
        inputs.set(a, made);
        return element("label", a.when ? { title: a.when } : {}, a.label, made);
      });
      const go = element("button", { type: "submit", class: "vdb-tune-submit" }, words.submit);
      form.replaceChildren(...(parameters.length > 2 * MOST_AXES ? [element("p", {}, words.many)] : [...rows, go]));
      const first = list().find((trial) => trial.origin === "default");
      if (first) fill(first);
    };
    const fill = (trial) => {
      for (const [a, made] of inputs) made.value = !(a.parameter in trial.config) ? "" : a.choices ? a.choices.findIndex((c) => c === trial.config[a.parameter]) : trial.config[a.parameter];
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const config = {};
      for (const [a, made] of inputs) if (made.value !== "") config[a.parameter] = a.choices ? a.choices[+made.value] : +made.value;
      ask({ kind: "try", config });
    });

    // ---- The table
    const worth = (trial) => {
      const [name, sign] = sorted;
      if (name === "front") return (front.has(trial.n) ? 0 : 1e9) + trial.n;
      const v = name === "trial" ? trial.n : trial.values[axisOf(name).index];
      return number(v) ? sign * v : Infinity;
    };
    const lay = () => {
      const goals = axes().filter((a) => a.kind === "objective");
      const sorter = (name, label_) => {
        const made = element("button", { type: "button" }, label_);
        made.addEventListener("click", () => { sorted = [name, sorted[0] === name ? -sorted[1] : 1]; lay(); });
        const order = sorted[0] === name ? { "aria-sort": sorted[1] > 0 ? "ascending" : "descending" } : {};
        return element("th", { scope: "col", ...order }, made);
      };
      const on = selected(), rows = list().filter((trial) => !(on.size || brushes()) || on.has(trial.n)).sort((a, b) => worth(a) - worth(b));
      const head_ = element("tr", {}, sorter("trial", words.trial), element("th", { scope: "col" }, words.state), element("th", { scope: "col" }, words.settings), ...goals.map((a) => sorter(a.name, a.label)));
      const body = rows.slice(0, MOST_ROWS).map((trial) => {
        const pin = element("button", { type: "button", title: words.pin }, text(trial.n));
        pin.addEventListener("click", () => toggle(trial.n));
        const state = front.has(trial.n) ? words.front : words.states[trial.state];
        return element("tr", { "data-trial": trial.n, ...(front.has(trial.n) ? { class: "vdb-tune-best" } : {}) }, element("td", {}, pin), element("td", trial.reason ? { title: trial.reason } : {}, state), element("td", {}, trial.text), ...goals.map((a) => element("td", {}, trial.told[a.index] ?? "–")));
      });
      table.replaceChildren(element("thead", {}, head_), element("tbody", {}, ...body));
      more.textContent = rows.length > MOST_ROWS ? words.more.replace("{n}", text(MOST_ROWS)).replace("{total}", text(rows.length)) : "";
    };
    const counted = () => {
      const n = selected().size, total = list().filter((trial) => trial.state !== "begun").length;
      count.textContent = n || brushes() ? words.brushed.replace("{n}", text(n)).replace("{total}", text(total)) : words.brush_hint;
      clear.hidden = !(n || brushes());
    };

    // ---- What the kernel says
    const update = () => {
      const now = model.get("status"), active = ["running", "pausing", "paused", "stopping"].includes(now);
      const ours_ = model.get("can_run");
      for (const made of [play, pause, stop]) made.hidden = !ours_;
      play.disabled = now === "stopping" || (active && now !== "paused" && now !== "pausing");
      pause.disabled = now !== "running";
      stop.disabled = !active || now === "stopping";
      bar.hidden = !ours_;
      bar.value = model.get("share");
      el.dataset.status = now;
      if (status.dataset.kind !== "silent") { status.textContent = model.get("sentence"); status.dataset.kind = model.get("wrong") ? "wrong" : ""; }
    };
    const offered = () => {
      for (const [c, name] of [[x, "x"], [y, "y"]]) {
        const groups = axes().map((a) => element("option", { value: a.name }, a.label));
        c.made.replaceChildren(...groups);
        c.made.value = model.get(name);
        c.log.checked = model.get(`log_${name}`);
      }
      prompt.replaceChildren(...model.get("prompts").map(([id, words_]) => element("option", { value: id }, words_)));
      prompt.value = model.get("prompt");
      layForm();
    };
    const refreshed = () => { x.made.value = model.get("x"); y.made.value = model.get("y"); x.log.checked = model.get("log_x"); y.log.checked = model.get("log_y"); redraw(); };
    const elsewhere = () => {
      if (JSON.stringify(model.get("selected")) === ours) return;
      rectangle = null;
      ranges.clear();
      ours = JSON.stringify(model.get("selected"));
      counted();
      lay();
      redraw();
    };
    const prompted = () => { prompt.value = model.get("prompt"); for (const { screen } of cards.values()) screen.replaceChildren(); showPins(); };
    const view = {
      came() {
        if (inputs.size && ![...inputs.values()].some((made) => made.value !== "")) { const first = list().find((trial) => trial.origin === "default"); if (first) fill(first); }
        if (brushes()) brushed(true); else lay();
        counted();
        showPins();
      },
      fetched(kind) { if (kind === "thumb") thumb(); else showPins(); },
    };
    const observed = { "change:status": update, "change:sentence": update, "change:wrong": update, "change:share": update, "change:can_run": update, "change:axes": () => { offered(); lay(); redraw(); }, "change:prompts": offered,
      "change:x": refreshed, "change:y": refreshed, "change:log_x": refreshed, "change:log_y": refreshed, "change:selected": elsewhere, "change:pinned": showPins, "change:prompt": prompted };
    for (const [name, act] of Object.entries(observed)) model.on(name, act);
    const listening = setInterval(() => {
      const silent = due !== null && Date.now() - due > SILENT_MS;
      if (silent === (status.dataset.kind === "silent")) return;
      status.dataset.kind = silent ? "silent" : "";
      if (silent) status.textContent = words.silent; else update();
    }, 500);
    const themes = new MutationObserver(redraw);
    themes.observe(document.body, { attributes: true });
    views.add(view);
    offered();
    update();
    view.came();
    return () => {
      views.delete(view);
      clearInterval(listening);
      clearTimeout(waiting);
      themes.disconnect();
      for (const p of [scatter, history, below, above]) p.end();
      for (const [name, act] of Object.entries(observed)) model.off(name, act);
    };
  };

  return { initialize, render };
};
