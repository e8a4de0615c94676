"""`make bench`: measurements on a real Kafka; never part of the tests. How each is taken: docs/benchmark.md."""
