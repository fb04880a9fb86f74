// Defines the elements that show and change the model.

/** Called once, as the page starts. */
export function defineModels() {}
