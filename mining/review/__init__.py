"""``mining review``: the page of a batch, served to people who say yes or no before it is sent."""
