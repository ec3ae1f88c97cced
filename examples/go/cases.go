package main

// The same as in ../rerank_compare.py.
type testCase struct {
	name      string
	query     string
	documents []string
}

var testCases = []testCase{
	{
		"Lexical Overlap Trap",
		"How to kill a Python process?",
		[]string{
			"Use kill -9 PID or pkill python to terminate a Python process.",
			"Python is a non-venomous snake that kills prey by constriction.",
			"Python programming language was created by Guido van Rossum.",
			"The process of learning Python takes about 3 months.",
			"Kill is a Unix command to send signals to processes.",
		},
	},
	{
		"Negation Trap",
		"Which medicine can be taken without food?",
		[]string{
			"Swallow these tablets on an empty stomach, an hour before breakfast.",
			"This medicine must be taken with food, never without.",
			"Food and medicine are exempt from the sales tax.",
			"Without food a human survives for about three weeks.",
			"No medicine can be taken into the building without permission.",
		},
	},
	{
		"Paraphrase Without Overlap",
		"How can I lower my electricity bill?",
		[]string{
			"Swap old bulbs for LEDs and unplug idle appliances to spend less on power.",
			"The bill to lower the voting age passed the second chamber.",
			"Electricity is the flow of electrons through a conductor.",
			"My electricity bill was printed on recycled paper.",
			"Bill can lower the volume with the knob on the left.",
		},
	},
}
