"""What the tests of the programs share: runners, images, a registry, the look for what was left behind."""
