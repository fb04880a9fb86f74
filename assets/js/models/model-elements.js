// Defines the elements that show and change the model.

import { ModelDownloads } from "./model-downloads.js";
import { ModelPicker } from "./model-picker.js";
import { ModelStatus } from "./model-status.js";

/** Called once, as the page starts. */
export function defineModels() {
  customElements.define("quest-model-status", ModelStatus);
  customElements.define("quest-model-downloads", ModelDownloads);
  customElements.define("quest-model-picker", ModelPicker);
}
