// @ts-check
/** What can be set, and a word on each. Names are those of the API; what is left empty is left to the server. */

/** @typedef {import("../page/texts.js").TextKey} TextKey */
/** @typedef {{ name: string, help: TextKey, text?: boolean, min?: number, max?: number, step?: number, hint?: string, hintText?: TextKey, initial?: string }} Field */

/** @type {Field[]} */
export const SAMPLING = [
  { name: "temperature", help: "helpTemperature", min: 0, max: 2, hint: "1", initial: "0" },
  { name: "top_p", help: "helpTopP", min: 0, max: 1, hint: "1" },
  { name: "top_k", help: "helpTopK", min: -1, step: 1, hintText: "hintAll" },
  { name: "min_p", help: "helpMinP", min: 0, max: 1, hint: "0" },
  { name: "repetition_penalty", help: "helpRepetition", min: 0, max: 100, hint: "1" },
  { name: "presence_penalty", help: "helpPresence", min: -2, max: 2, hint: "0" },
  { name: "frequency_penalty", help: "helpFrequency", min: -2, max: 2, hint: "0" },
  { name: "seed", help: "helpSeed", step: 1, hintText: "hintRandom" },
  { name: "max_completion_tokens", help: "helpMaxTokens", min: 1, step: 1, hintText: "hintFits" },
  { name: "stop", help: "helpStop", text: true, hintText: "hintNothing" },
];

/** @type {Field[]} */
export const MEDIA = [
  { name: "max_pixels", help: "helpMaxPixels", min: 784, step: 1, hintText: "hintServer" },
  { name: "fps", help: "helpFps", min: 0, hint: "2" },
  { name: "max_frames", help: "helpMaxFrames", min: 2, step: 1, hint: "768" },
];

/** Forms that an answer can be held to; each but the first two has an example that shows how it is written. */
export const FORMS = {
  text: null,
  json: null,
  schema: '{\n  "type": "object",\n  "properties": {\n    "color": { "type": "string" },\n    "shape": { "enum": ["circle", "square", "star"] }\n  },\n  "required": ["color", "shape"]\n}',
  choice: "red\ngreen\nblue",
  regex: "[A-Z][a-z]+ (circle|square|star)",
};

export const TOOLS_EXAMPLE = '[{ "type": "function", "function": {\n  "name": "get_weather", "description": "Weather of a city",\n  "parameters": { "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] } } }]';
