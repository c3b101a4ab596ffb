"""What tests of several folders share: drivers that play a host, cards and guests to play it on, and waiting."""
