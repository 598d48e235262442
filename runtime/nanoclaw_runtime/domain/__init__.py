"""Pure decisions: state, event and `now` go in, the next state and actions come out."""
