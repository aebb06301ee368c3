"""The stage `audit`: what an entry says, how it gets into the trail, and the stage itself."""
