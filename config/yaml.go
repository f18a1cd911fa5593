package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// How values stand in FelixConfiguration, where lists are lists and durations have units,
// turned into the text that stands in the environment.

// emptyList stands for a list that was given and is empty: it is not the default.
const emptyList = "none"

func yamlBool(raw json.RawMessage) (string, error) {
	var b bool
	if json.Unmarshal(raw, &b) != nil {
		return "", fmt.Errorf("%s: must be true or false", raw)
	}
	return strconv.FormatBool(b), nil
}

func yamlNumber(raw json.RawMessage) (string, error) {
	var n json.Number
	if len(raw) == 0 || raw[0] == '"' || json.Unmarshal(raw, &n) != nil {
		return "", fmt.Errorf("%s: must be a whole number", raw)
	}
	return n.String(), nil
}

func yamlDuration(unit time.Duration) func(json.RawMessage) (string, error) {
	return func(raw json.RawMessage) (string, error) {
		d, err := duration(raw)
		if err != nil {
			return "", err
		}
		return strconv.FormatFloat(float64(d)/float64(unit), 'f', -1, 64), nil
	}
}

func duration(raw json.RawMessage) (time.Duration, error) {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		if d, err := time.ParseDuration(s); err == nil {
			return d, nil
		}
	}
	return 0, fmt.Errorf("%s: must be a duration such as 90s or 1m30s", raw)
}

// yamlText takes text, a number, a list of them, or a mapping of names to them.
func yamlText(raw json.RawMessage) (string, error) {
	var v any
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return "", err
	}
	switch v := v.(type) {
	case []any:
		return joined(v)
	case map[string]any:
		return pairs(v)
	}
	return scalar(v)
}

func scalar(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case json.Number:
		return v.String(), nil
	case bool:
		return strconv.FormatBool(v), nil
	}
	return "", errors.New("must be a text, a number or a list of them")
}

func joined(list []any) (string, error) {
	var all []string
	for _, e := range list {
		s, err := scalar(e)
		if err != nil {
			return "", err
		}
		all = append(all, s)
	}
	if len(all) == 0 {
		return emptyList, nil
	}
	return strings.Join(all, ","), nil
}

func pairs(m map[string]any) (string, error) {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		s, err := scalar(m[k])
		if err != nil {
			return "", err
		}
		all = append(all, k+"="+s)
	}
	return strings.Join(all, ","), nil
}

// yamlHostPorts takes [{protocol: TCP, net: 10.0.0.0/8, port: 22}].
func yamlHostPorts(raw json.RawMessage) (string, error) {
	return list(raw, "{protocol, net, port}", func(p struct {
		Protocol string  `json:"protocol"`
		Net      string  `json:"net"`
		Port     *uint16 `json:"port"`
	}) (string, error) {
		if p.Port == nil {
			return "", errors.New("port is missing")
		}
		s := strconv.Itoa(int(*p.Port))
		switch {
		case p.Net != "":
			s = "[" + p.Net + "]:" + s
			fallthrough
		case p.Protocol != "":
			protocol := "tcp"
			if p.Protocol != "" {
				protocol = strings.ToLower(p.Protocol)
			}
			s = protocol + ":" + s
		}
		return s, nil
	})
}

// yamlTables takes {min: 1, max: 250} or a list of them.
func yamlTables(raw json.RawMessage) (string, error) {
	if len(raw) > 0 && raw[0] == '{' {
		raw = slices.Concat([]byte{'['}, raw, []byte{']'})
	}
	return list(raw, "{min, max}", func(r struct {
		Min *int `json:"min"`
		Max *int `json:"max"`
	}) (string, error) {
		if r.Min == nil || r.Max == nil {
			return "", errors.New("min or max is missing")
		}
		return fmt.Sprintf("%d-%d", *r.Min, *r.Max), nil
	})
}

// yamlDurations takes [{name: calculationGraph, timeout: 90s}].
func yamlDurations(raw json.RawMessage) (string, error) {
	return list(raw, "{name, timeout}", func(p struct {
		Name    string          `json:"name"`
		Timeout json.RawMessage `json:"timeout"`
	}) (string, error) {
		d, err := duration(p.Timeout)
		return p.Name + "=" + d.String(), err
	})
}

// list decodes a list of mappings strictly, and joins their texts by commas.
func list[T any](raw json.RawMessage, want string, text func(T) (string, error)) (string, error) {
	var all []T
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.DisallowUnknownFields()
	if err := d.Decode(&all); err != nil {
		return "", fmt.Errorf("%s: must be a list of %s", raw, want)
	}
	var texts []string
	for i, e := range all {
		s, err := text(e)
		if err != nil {
			return "", fmt.Errorf("[%d]: %w", i, err)
		}
		texts = append(texts, s)
	}
	if len(texts) == 0 {
		return emptyList, nil
	}
	return strings.Join(texts, ","), nil
}
