"""ecgwatch: watches electrocardiograms on Kafka. No medical device."""

__version__ = "0.1.0"
