// Package selector is Calico's label selector language: it parses a selector,
// prints its canonical form and id, and tells which labels it matches.
//
//	selector = and { "||" and }
//	and      = term { "&&" term }
//	term     = { "!" } ( "(" selector ")" | "all()" | "global()" | "has(" label ")"
//	         | label ( "==" | "!=" | "contains" | "starts with" | "ends with" ) string
//	         | label [ "not" ] "in" "{" [ string { "," string } [ "," ] ] "}" )
//	label    = one or more of a-z A-Z 0-9 _ . / -
//	string   = "…" or '…'; there are no escapes
//
// White space may stand between any two of these words, and need not stand
// anywhere ("notin", "startswith" and in{"a"} are accepted). The words of the
// language are no reserved words: a label may be called "in" or "has". An
// empty selector means all().
//
// A label that is absent satisfies "!=" and "not in" and nothing else.
// global() matches everything, as all() does; only in a namespaceSelector does
// it mean more, and there the caller replaces it (Selector.Replace).
//
// Canonical forms and ids are those of upstream Calico with one exception: a
// negation of a parenthesised negation, !(!x), is x here, so that parsing a
// canonical form always gives that canonical form back. Parentheses that a
// user wrote inside a chain are kept, as upstream keeps them: (a && b) && c
// is not a && b && c, though they match the same labels.
//
// The package knows nothing of profiles, namespaces or endpoints.
package selector
