// Package config is the table of Felix's parameters: names, types, defaults and a line
// about each. Parsing, validation, the merge of layers and the documentation all come
// from it, so that a parameter is described in one place.
//
// A parameter can be set in the environment (FELIX_NAME), in the configuration file, in
// the FelixConfiguration node.NAME and in the one named default; what stands earlier in
// this list wins. "none" stands for the zero value of a parameter's type. Names and
// formats are upstream's.
package config
