// Defines the elements of the race.

/** Called once, as the page starts. */
export function defineRace() {}
