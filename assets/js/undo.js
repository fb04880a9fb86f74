// The offer to bring a cleared conversation back: goes after its seconds, or as soon as a new one has begun.

export class UndoOffer extends HTMLElement {
  connectedCallback() {
    this.timer = setTimeout(() => this.remove(), 1000 * Number(this.getAttribute("seconds")));
    const messages = document.querySelector("#messages");
    this.asking = new MutationObserver(() => messages.querySelector("quest-question") && this.remove());
    this.asking.observe(messages, { subtree: true, childList: true });
  }

  disconnectedCallback() {
    clearTimeout(this.timer);
    this.asking.disconnect();
  }
}
