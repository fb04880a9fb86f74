// One line above the question for what keeps every answer from coming: the server is gone, or there is no model.

import { server } from "./connection.js";
import { askForDialog } from "../desk/dialogs.js";

const LOST = "Quest Chat cannot be reached. Is it still running? This page goes on by itself when it is back.";
const ASKS_FOR_KEY = "Quest Chat asks for another key. Reload this page to enter it.";

export class ConnectionLine extends HTMLElement {
  connectedCallback() {
    if (this.words) return;
    this.words = document.createElement("span");
    this.choose = document.createElement("button");
    this.choose.type = "button";
    this.choose.textContent = "Choose a model";
    this.choose.addEventListener("click", () => askForDialog("models"));
    this.append(this.words, this.choose);
    this.setAttribute("role", "alert");
    window.addEventListener("quest-server", () => this.show());
    this.show();
  }

  show() {
    const hasFailed = server.reachable && server.stage === "failed";
    const lost = server.asksForKey ? ASKS_FOR_KEY : LOST;
    const text = server.reachable ? (hasFailed ? `There is no model: ${server.message}` : "") : lost;
    if (this.words.textContent !== text) this.words.textContent = text;
    this.choose.hidden = !hasFailed;
    this.hidden = !text;
  }
}
