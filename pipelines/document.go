package pipelines

import "gopkg.in/yaml.v3"

// documentKind says what a YAML document is by its first telling key: "pipeline", "suite", or "" for an included file.
func documentKind(n *yaml.Node) string {
	for i := 0; i+1 < len(n.Content) && n.Kind == yaml.MappingNode; i += 2 {
		if k := n.Content[i].Value; k == "suite" || k == "pipeline" {
			return k
		}
	}
	return ""
}

func (d *Document) isGroup(name string) bool {
	_, ok := d.groupIndex[name]
	return ok
}

func (d *Document) groupNames() []string {
	names := make([]string, 0, len(d.groups))
	for _, g := range d.groups {
		names = append(names, g.name)
	}
	return names
}

func (d *Document) stage(name string) *stageNode { return d.byName[name] }

func (d *Document) stageNames() []string { return sortedKeys(d.byName) }

func (d *Document) axisNames() []string {
	names := make([]string, 0, len(d.axes))
	for _, a := range d.axes {
		names = append(names, a.name)
	}
	return names
}
