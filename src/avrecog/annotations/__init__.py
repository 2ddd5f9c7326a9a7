"""From what people have, a CSV, a tree of folders, Kinetics lists or the demo, to the tables of stage prepare."""
