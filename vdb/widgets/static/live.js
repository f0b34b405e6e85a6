// The page's half of `vdb.widgets.live`. A frame comes as a JPEG with a number, is decoded once for all views of
// this page, drawn in its order, and acknowledged once. Whatever a person does is a message; what is so, the kernel
// says in traits. Sentences come from the kernel, so this file holds none.

const SILENT_MS = 5000; // Without a word from the kernel, although one was due
const BEAT_MS = 20000; // How often a page says that it is there

const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

export default () => {
  const page = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`;
  const views = new Set();
  let newest = null; // What was drawn last, for a view that opens later
  let due = null; // Since when the kernel owes an answer
  let alive = null; // When it last said anything, while it plays: then it does four times a second
  let drawing = Promise.resolve(); // One frame after the other, however long each takes to decode
  let rest = null; // Ends what is done while there are views

  const tell = (model, message) => {
    try {
      model.send({ page, views: views.size, ...message });
    } catch {
      due = 0; // There is no kernel
    }
  };

  const ask = (model, message) => {
    due ??= Date.now();
    tell(model, message);
  };

  const draw = async (model, seq, data) => {
    try {
      newest?.picture.close();
      newest = null;
      if (!views.size) return;
      newest = { seq, picture: await createImageBitmap(new Blob([data], { type: "image/jpeg" })) };
      for (const view of views) view.draw(newest);
    } finally {
      tell(model, { kind: "drawn", seq });
    }
  };

  const initialize = ({ model }) => {
    const heard = (kind) => {
      alive = model.get("status") === "playing" ? Date.now() : null;
      if (kind === "heard") due = null;
    };
    const leaving = () => tell(model, { kind: "beat", views: 0 });
    model.on("msg:custom", (message, buffers) => {
      heard(message.kind);
      for (const view of views) view.heard(message.kind);
      if (message.kind !== "frame") return;
      drawing = drawing.then(() => draw(model, message.seq, buffers[0])).catch(console.error);
    });
    model.on("change:status", () => heard());
    window.addEventListener("pagehide", leaving);
    return () => window.removeEventListener("pagehide", leaving);
  };

  const look = (model) => {
    const beat = setInterval(() => ask(model, { kind: "beat" }), BEAT_MS);
    const wait = setInterval(() => {
      const silent = [due, alive].some((since) => since !== null && Date.now() - since > SILENT_MS);
      for (const view of views) view.silent(silent);
    }, 500);
    return () => [beat, wait].forEach(clearInterval);
  };

  const render = ({ model, el }) => {
    const words = model.get("words");
    const canvas = element("canvas", { role: "img", hidden: "" });
    const empty = element("p", { class: "vdb-live-empty" }, words.empty);
    const prompt = element("input", { type: "text", autocomplete: "off", spellcheck: "false", maxlength: 2000 });
    const change = element("button", { type: "submit" }, words.switch);
    const form = element("form", { class: "vdb-live-row" }, element("label", { class: "vdb-live-prompt" }, words.prompt, prompt), change);
    const play = element("button", { type: "button", class: "vdb-live-play" });
    const stop = element("button", { type: "button", class: "vdb-live-stop" }, words.stop);
    const save = element("button", { type: "button", class: "vdb-live-save", title: words.saving }, words.save);
    const select = (name) => {
      const made = element("select", { class: `vdb-live-${name}` });
      made.addEventListener("change", () => ask(model, { kind: name, value: made.value }));
      return made;
    };
    const [controller, fps] = [select("controller"), select("fps")];
    const controls = element("div", { class: "vdb-live-row" }, play, stop,
      element("label", {}, words.controller, controller), element("label", {}, words.fps, fps), save);
    const strip = element("div", { class: "vdb-live-strip" });
    const status = element("p", { class: "vdb-live-status", role: "status" });
    const screen = element("div", { class: "vdb-live-screen" }, canvas, empty);
    el.classList.add("vdb-live");
    el.setAttribute("role", "group");
    el.setAttribute("aria-label", words.title);
    el.dataset.lmSuppressShortcuts = "true"; // A space on a button plays, and does not scroll the notebook,
    for (const name of ["keydown", "keypress", "keyup"]) // and Enter in the prompt is not the notebook's
      el.addEventListener(name, (event) => event.stopPropagation());
    el.append(screen, form, controls, strip, status);

    const view = {
      draw({ picture, seq }) {
        if (canvas.width !== picture.width || canvas.height !== picture.height) {
          [canvas.width, canvas.height] = [picture.width, picture.height];
          canvas.classList.toggle("vdb-live-small", Math.max(picture.width, picture.height) <= 256);
        }
        canvas.getContext("2d").drawImage(picture, 0, 0);
        canvas.dataset.seq = seq;
        canvas.hidden = false;
        empty.hidden = true;
      },
      heard(kind) {
        if (kind === "heard") setTimeout(chosen, 200); // What was refused is not chosen
      },
      silent(is) {
        if (is === (status.dataset.kind === "silent")) return;
        if (is) show(words.silent, "silent");
        else update();
      },
    };
    const show = (text, kind) => {
      if (status.textContent !== text) status.textContent = text;
      status.dataset.kind = kind;
    };
    const update = () => {
      const now = model.get("status");
      const active = ["preparing", "playing", "paused"].includes(now);
      play.textContent = active && now !== "paused" ? words.pause : words.play;
      play.dataset.kind = active && now !== "paused" ? "pause" : "play";
      if (!active && document.activeElement === stop) play.focus();
      stop.disabled = !active;
      save.disabled = !model.get("saveable");
      el.dataset.status = now;
      show(model.get("sentence"), model.get("wrong") ? "wrong" : "");
    };
    const told = () => {
      strip.replaceChildren(...model.get("strip").map(([name, value]) =>
        element("div", {}, element("span", {}, name), element("b", {}, value))));
    };
    const named = () => {
      if (document.activeElement !== prompt) prompt.value = model.get("prompt");
      canvas.setAttribute("aria-label", model.get("prompt"));
    };
    const chosen = () => {
      for (const [made, choices, now] of [[controller, "controllers", "controller"], [fps, "paces", "fps"]]) {
        if (made.dataset.choices !== JSON.stringify(model.get(choices))) {
          made.replaceChildren(...model.get(choices).map(([value, text]) => element("option", { value }, text)));
          made.dataset.choices = JSON.stringify(model.get(choices));
        }
        made.value = model.get(now);
      }
    };
    play.addEventListener("click", () => ask(model, { kind: play.dataset.kind, prompt: prompt.value }));
    stop.addEventListener("click", () => ask(model, { kind: "stop" }));
    save.addEventListener("click", () => ask(model, { kind: "save" }));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      ask(model, { kind: "switch", prompt: prompt.value });
    });
    const observed = { "change:status": update, "change:sentence": update, "change:wrong": update, "change:saveable": update, "change:strip": told,
      "change:prompt": named, "change:controller": chosen, "change:fps": chosen, "change:paces": chosen };
    for (const [name, act] of Object.entries(observed)) model.on(name, act);
    for (const act of [update, told, named, chosen]) act();

    views.add(view);
    rest ??= look(model);
    if (newest) view.draw(newest);
    ask(model, { kind: "beat", fresh: !newest });
    return () => {
      views.delete(view);
      if (!views.size) rest = rest?.();
      for (const [name, act] of Object.entries(observed)) model.off(name, act);
      tell(model, { kind: "beat" });
    };
  };

  return { initialize, render };
};
