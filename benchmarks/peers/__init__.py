"""Other engines, each in an environment of its own, so that one run can put Lemni beside them."""
