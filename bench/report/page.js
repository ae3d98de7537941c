"use strict";

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

// Filters and order

const form = document.getElementById("filters");
const cards = all(".case");

const texts = new Map();
const textOf = (card) => {
  if (!texts.has(card)) texts.set(card, card.textContent.toLowerCase());
  return texts.get(card);
};

const wanted = (card, fields) =>
  fields.every(([name, value]) => {
    if (!value || name === "sort") return true;
    if (name === "text") return textOf(card).includes(value.toLowerCase());
    return card.dataset[name] === value;
  });

const sorted = (by) => {
  const number = (card) => (card.dataset[by] === "" ? Infinity : Number(card.dataset[by]));
  if (!by) return cards;
  if (by === "title") return [...cards].sort((a, b) => a.dataset.title.localeCompare(b.dataset.title, undefined, { numeric: true }));
  if (by === "seconds") return [...cards].sort((a, b) => Number(b.dataset.seconds || -1) - Number(a.dataset.seconds || -1));
  return [...cards].sort((a, b) => number(a) - number(b));
};

const filter = () => {
  const fields = [...new FormData(form)];
  let shown = 0;
  for (const card of cards) {
    card.hidden = !wanted(card, fields);
    shown += !card.hidden;
  }
  form.querySelector("output").textContent = `${shown} of ${cards.length} shown`;
};

if (form) {
  form.hidden = false;
  form.addEventListener("input", filter);
  form.elements.sort.addEventListener("change", (event) =>
    document.getElementById("cards").append(...sorted(event.target.value)),
  );
  form.addEventListener("submit", (event) => event.preventDefault());
  filter();
  for (const link of all("[data-filter]")) {
    link.addEventListener("click", () => {
      const select = form.elements[link.dataset.filter];
      if (!select) return;
      form.reset();
      select.value = link.dataset.value;
      filter();
    });
  }
}

// Pictures: side by side, slider, blink, difference; all tiles or one; any zoom

const BLINK_MS = 700;
const MOST_ZOOM = 16;
let viewers = 0;

const radios = (legend, name, choices, chosen, changed) => {
  const set = make("fieldset", {}, make("legend", { textContent: legend }));
  for (const [value, text, label] of choices) {
    const input = make("input", { type: "radio", name, value, checked: value === chosen });
    if (label) input.setAttribute("aria-label", label);
    input.addEventListener("change", () => changed(value));
    set.append(make("label", {}, input, make("span", { textContent: text })));
  }
  return set;
};

const build = (card) => {
  const viewer = card.querySelector(".viewer");
  if (!viewer || viewer.dataset.built) return;
  viewer.dataset.built = "yes";
  const pictures = [...viewer.querySelectorAll("img"), ...card.querySelectorAll(":scope > summary > img")];
  const heat = pictures.find((picture) => picture.dataset.label === "difference");
  const grids = pictures.filter((picture) => picture !== heat);
  const size = { width: Number(grids[0].getAttribute("width")), height: Number(grids[0].getAttribute("height")) };
  const comparable = grids.length === 2 && grids[0].getAttribute("width") === grids[1].getAttribute("width") &&
    grids[0].getAttribute("height") === grids[1].getAttribute("height");
  const captions = new Map(all("figure", viewer).map((figure) =>
    [figure.querySelector("img"), figure.querySelector("figcaption").textContent]));
  const caption = (picture) => captions.get(picture) || picture.dataset.label;
  const tiles = Math.max(1, Number(card.dataset.tiles));
  const state = { mode: "together", tile: 0, zoom: 0, cut: 50, blinking: 0, timer: 0 };
  const name = `viewer${viewers++}`;
  const stages = make("div", { className: "stages" });
  const cut = make("input", { type: "range", min: 0, max: 100, value: 50 });
  cut.setAttribute("aria-label", `Slider: ${grids[0].dataset.label} on the left, ${(grids[1] || grids[0]).dataset.label} on the right`);
  const zoom = make("select");
  zoom.setAttribute("aria-label", "zoom");
  zoom.append(make("option", { value: 0, textContent: "fit" }));
  for (let factor = 1; factor <= MOST_ZOOM; factor *= 2) zoom.append(make("option", { value: factor, textContent: `${factor}×` }));

  const layer = (picture, crop) => {
    const copy = make("img", { src: picture.src, alt: `${picture.alt}${state.tile ? `, tile ${state.tile}` : ""}` });
    copy.style.width = `${size.width * crop.zoom}px`;
    copy.style.height = `${size.height * crop.zoom}px`;
    copy.style.left = `${-crop.left * crop.zoom}px`;
    return copy;
  };
  const stage = (layers, text, crop) => {
    const inner = make("div", { className: "crop" }, ...layers.map((picture) => layer(picture, crop)));
    inner.style.width = `${crop.width * crop.zoom}px`;
    inner.style.height = `${size.height * crop.zoom}px`;
    const view = make("div", { className: "view", tabIndex: 0 }, inner);
    view.setAttribute("role", "group");
    view.setAttribute("aria-label", text);
    return make("figure", { className: "stage" }, view, make("figcaption", { textContent: text }));
  };
  const place = () => {
    const top = stages.querySelector("img:nth-of-type(2)");
    if (!top) return;
    if (state.mode === "slider") {
      // The clip is relative to the entire grid, the slider to its visible part.
      const whole = parseFloat(top.style.width);
      const seen = top.parentElement.offsetWidth;
      const from = -parseFloat(top.style.left) + (seen * state.cut) / 100;
      top.style.clipPath = `inset(0 0 0 ${(100 * from) / whole}%)`;
      top.parentElement.querySelector(".line").style.left = `${state.cut}%`;
    } else if (state.mode === "blink") {
      top.style.visibility = state.blinking ? "visible" : "hidden";
      stages.querySelector("figcaption").textContent = caption(grids[state.blinking]);
    }
  };
  const draw = () => {
    clearInterval(state.timer);
    const width = size.width / tiles;
    const crop = state.tile ? { left: (state.tile - 1) * width, width } : { left: 0, width: size.width };
    const rows = state.mode === "together" && !state.tile ? pictures.length : 1;
    const columns = state.mode === "together" && state.tile ? pictures.length : 1;
    const fit = Math.min((viewer.clientWidth - 14 * columns) / columns / crop.width, (innerHeight * 0.55) / rows / size.height);
    crop.zoom = state.zoom || (fit >= 1 ? Math.min(Math.floor(fit), MOST_ZOOM) : fit);
    const shown = {
      together: () => [...grids, ...(heat ? [heat] : [])].map((picture) => stage([picture], caption(picture), crop)),
      slider: () => [stage(grids, `left: ${caption(grids[0])}, right: ${caption(grids[1])}`, crop)],
      blink: () => [stage(grids, caption(grids[0]), crop)],
      difference: () => [stage([heat], caption(heat), crop)],
    }[state.mode]();
    stages.replaceChildren(...shown);
    cut.hidden = state.mode !== "slider";
    if (state.mode === "slider") {
      const view = stages.querySelector(".crop");
      view.append(make("div", { className: "line" }));
      const drag = (event) => {
        if (event.type === "pointermove" && !event.buttons) return;
        const box = view.getBoundingClientRect();
        state.cut = Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width));
        cut.value = state.cut;
        place();
      };
      view.addEventListener("pointerdown", drag);
      view.addEventListener("pointermove", drag);
    }
    if (state.mode === "blink") {
      state.timer = setInterval(() => {
        state.blinking = 1 - state.blinking;
        place();
      }, BLINK_MS);
    }
    place();
  };
  cut.addEventListener("input", () => { state.cut = Number(cut.value); place(); });
  zoom.addEventListener("change", () => { state.zoom = Number(zoom.value); draw(); });
  const controls = make("div", { className: "controls" });
  if (comparable) {
    const modes = [["together", "together"], ["slider", "slider"], ["blink", "blink"], ...(heat ? [["difference", "difference"]] : [])];
    controls.append(radios("view", `${name}-mode`, modes, "together", (mode) => { state.mode = mode; draw(); }));
  }
  if (tiles > 1) {
    const scores = all(".tiles tbody tr", card).map((row) => row.children[2].textContent);
    const choices = [["0", "all", "all tiles"]];
    for (let tile = 1; tile <= tiles; tile++) {
      choices.push([String(tile), String(tile), `tile ${tile}${scores[tile - 1] ? `, SSIM ${scores[tile - 1]}` : ""}`]);
    }
    controls.append(radios("tile", `${name}-tile`, choices, "0", (tile) => { state.tile = Number(tile); draw(); }));
  }
  controls.append(make("label", {}, "zoom ", zoom), cut);
  viewer.replaceChildren(controls, stages);
  card.addEventListener("toggle", () => (card.open ? draw() : clearInterval(state.timer)));
  draw();
};

for (const card of cards) {
  card.addEventListener("toggle", () => card.open && build(card));
  if (card.open) build(card);
}

// A link to a case opens it

const reveal = () => {
  const card = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!card || !card.matches(".case")) return;
  if (card.hidden) {
    form.reset();
    filter();
  }
  card.open = true;
  card.scrollIntoView();
};
addEventListener("hashchange", reveal);
reveal();

// Marks of plots show their picture on hover and focus; arrow keys move between them

const peek = document.getElementById("peek");
const show = (mark) => {
  const card = document.getElementById((mark.getAttribute("href") || mark.getAttribute("xlink:href")).slice(1));
  if (!card) return;
  const label = (mark.hasAttribute("aria-label") ? mark : mark.querySelector("[aria-label]") || card).getAttribute("aria-label");
  const picture = card.querySelector(":scope > summary > img");
  peek.replaceChildren(label || card.dataset.title, ...(picture ? [make("img", { src: picture.src, alt: "" })] : []));
  peek.hidden = false;
  const mine = peek.getBoundingClientRect();
  const box = mark.getBoundingClientRect();
  const below = box.bottom + 10 + mine.height < innerHeight;
  peek.style.left = `${Math.max(4, Math.min(box.left, innerWidth - mine.width - 8))}px`;
  peek.style.top = `${below ? box.bottom + 10 : Math.max(4, box.top - mine.height - 10)}px`;
};
const hide = () => { peek.hidden = true; };
const peeks = (mark) => {
  for (const event of ["pointerenter", "focus"]) mark.addEventListener(event, () => show(mark));
  for (const event of ["pointerleave", "blur"]) mark.addEventListener(event, hide);
};
all(".map a").forEach(peeks);
for (const chart of all(".chart svg")) {
  const marks = all("a", chart).filter((mark) => mark.getAttribute("xlink:href")?.startsWith("#"));
  marks.forEach((mark, number) => {
    mark.removeAttribute("target");
    mark.setAttribute("tabindex", number ? "-1" : "0");
    peeks(mark);
    mark.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      mark.setAttribute("tabindex", "-1");
      const next = marks[(number + step + marks.length) % marks.length];
      next.setAttribute("tabindex", "0");
      next.focus();
    });
  });
}
addEventListener("keydown", (event) => event.key === "Escape" && hide());

// Copying

const copyable = (element, text, label) => {
  const button = make("button", { type: "button", textContent: "copy" });
  button.setAttribute("aria-label", `copy ${label}`);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(element);
      button.textContent = "selected";
    }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });
  return button;
};
for (const text of all("pre.copy")) {
  const box = make("div", { className: "copied" });
  text.replaceWith(box);
  box.append(text, copyable(text, () => text.textContent, text.closest(".settings") ? "the settings" : "the command"));
}
const environment = document.getElementById("environment-table");
if (environment) {
  const rows = () => all("tr", environment).map((row) => [...row.children].map((cell) => cell.textContent).join("\t")).join("\n");
  environment.parentElement.before(copyable(environment, rows, "the environment"));
}
