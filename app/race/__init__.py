"""The race of dense attention against Quest: one question, two forks of one session."""
