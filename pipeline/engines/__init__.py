"""The engines that run the graph: Beam's runners, their options and their errors."""
