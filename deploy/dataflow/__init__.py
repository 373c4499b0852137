"""A Flex Template for Dataflow."""
