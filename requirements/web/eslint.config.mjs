/** Rules for the page's modules: what the language itself warns of, and what the page does throughout. */

import js from "@eslint/js";
import globals from "globals";

export default [
  { ...js.configs.recommended, files: ["**/clients/web/js/**/*.js"] },
  {
    files: ["**/clients/web/js/**/*.js"],
    languageOptions: { ecmaVersion: 2024, sourceType: "module", globals: globals.browser },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      "eqeqeq": ["error", "always", { null: "ignore" }],
      "no-var": "error",
      "prefer-const": "error",
      "no-implicit-coercion": ["error", { boolean: false }],
      "no-restricted-properties": ["error", { property: "innerHTML" }, { property: "outerHTML" }],
      "no-restricted-syntax": ["error", { selector: "Literal[value=/^https?:/][value!='http://www.w3.org/2000/svg']", message: "Nothing comes from elsewhere." }],
    },
  },
];
