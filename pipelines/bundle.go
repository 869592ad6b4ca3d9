package pipelines

// Bundle is everything that resolving a pipeline reads, so that it can be done again elsewhere and give the same value:
// the files, the overrides, the seed and the listed environment.
type Bundle struct {
	// File is the pipeline's path relative to the repository root, with forward slashes.
	File string `json:"file"`
	// Files is path relative to the root → content: the pipeline, its includes and its region files.
	Files map[string]string `json:"files"`
	// Set holds the overrides of --set, as text.
	Set map[string]string `json:"set,omitempty"`
	// Seed overrides the file's when not nil.
	Seed *uint64 `json:"seed,omitempty"`
	// Env holds the variables listed under `env:`.
	Env map[string]string `json:"env,omitempty"`
	// Only keeps one stage and what it needs, when not empty.
	Only string `json:"only,omitempty"`
	// Compare is laid over a pipeline in which no stage compares: over its last collect stage, or as a collect stage of
	// its own behind all others.
	Compare *Compare `json:"compare,omitempty"`
}
