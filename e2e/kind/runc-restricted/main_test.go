package main

import (
	"reflect"
	"testing"
)

func TestMissingNamesTheBitsThatAreNotSet(t *testing.T) {
	// 41 capabilities, all but number 24.
	lacking, err := missing("000001fffeffffff")
	if err != nil || !reflect.DeepEqual(lacking, map[string]bool{"CAP_SYS_RESOURCE": true}) {
		t.Fatal(lacking, err)
	}
}

func TestRestrictTakesOutWhatIsLacking(t *testing.T) {
	process := map[string]any{
		"capabilities": map[string]any{"bounding": []any{"CAP_CHOWN", "CAP_SYS_RESOURCE"}},
		"rlimits":      []any{"x"},
		"oomScoreAdj":  float64(-500),
	}
	restrict(process, map[string]bool{"CAP_SYS_RESOURCE": true}, 7)
	want := map[string]any{"capabilities": map[string]any{"bounding": []any{"CAP_CHOWN"}}, "oomScoreAdj": 7}
	if !reflect.DeepEqual(process, want) {
		t.Fatal(process)
	}
}

func TestTargetReadsRuncsCommandLine(t *testing.T) {
	for _, c := range []struct {
		args      []string
		path, key string
	}{
		{[]string{"--root", "/r", "create", "--bundle", "/b", "id"}, "/b/config.json", "process"},
		{[]string{"run", "--bundle=/b", "id"}, "/b/config.json", "process"},
		{[]string{"exec", "--process", "/p.json", "id"}, "/p.json", ""},
		{[]string{"state", "id"}, "", ""},
	} {
		if path, key := target(c.args); path != c.path || key != c.key {
			t.Errorf("%v: %q %q", c.args, path, key)
		}
	}
}
