package pipelines

// Suite is a set of pipelines that run on a schedule.
type Suite struct {
	Name     string        `json:"name"`
	File     string        `json:"file,omitempty"` // relative to the repository root
	Schedule SuiteSchedule `json:"schedule,omitzero"`
	// Pipelines stand in the order of the file.
	Pipelines []SuitePipeline `json:"pipelines"`
	Compare   *Compare        `json:"compare,omitempty"`
	Notify    *Notify         `json:"notify,omitempty"`
}

// SuiteSchedule says when a suite runs; an empty Cron: only when triggered.
type SuiteSchedule struct {
	Cron     string   `json:"cron,omitempty"`
	Timezone string   `json:"timezone,omitempty"`
	Overlap  string   `json:"overlap,omitempty"` // skip | buffer-one | buffer-all | cancel-other | terminate-other | allow-all
	CatchUp  Duration `json:"catchUp,omitempty"`
}

// SuitePipeline is one pipeline of a suite.
type SuitePipeline struct {
	File      string            `json:"file"` // relative to the repository root
	Set       map[string]string `json:"set,omitempty"`
	OnFailure string            `json:"onFailure"` // OnFailureAbort or OnFailureContinue
}

// Notify says who is told.
type Notify struct {
	// Webhook is a URL, or `=` and an expression over `secrets`.
	Webhook string   `json:"webhook"`
	On      []string `json:"on"` // failed | invalid | regressed | recovered | passed
}

// ParseSuite reads a suite without looking at its pipelines. file is for messages.
func ParseSuite(file string, data []byte) (*Suite, error) { return nil, errBeingWritten }

// LoadSuite reads a suite, and loads each of its pipelines to check them.
func LoadSuite(path string, o Options) (*Suite, error) { return nil, errBeingWritten }
