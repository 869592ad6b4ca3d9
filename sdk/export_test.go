package sdk

// Start is Main without the exit, for examples.
var Start = start
