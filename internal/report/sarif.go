package report

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"

	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
)

// The part of SARIF 2.1.0 that a report needs. A result is an open route or a
// finding; what is closed passes without one.
type sarifLog struct {
	Schema  string     `json:"$schema"`
	Version string     `json:"version"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct {
	Tool        sarifTool         `json:"tool"`
	ColumnKind  string            `json:"columnKind"`
	Invocations []sarifInvocation `json:"invocations"`
	Results     []sarifResult     `json:"results"`
}

// sarifInvocation reports whether everything was read.
type sarifInvocation struct {
	Successful    bool                `json:"executionSuccessful"`
	Notifications []sarifNotification `json:"toolExecutionNotifications,omitempty"`
}

type sarifNotification struct {
	Level   string    `json:"level"`
	Message sarifText `json:"message"`
}

type sarifTool struct {
	Driver sarifDriver `json:"driver"`
}

type sarifDriver struct {
	Name    string      `json:"name"`
	Version string      `json:"version"`
	URI     string      `json:"informationUri"`
	Rules   []sarifRule `json:"rules"`
}

type sarifRule struct {
	ID      string            `json:"id"`
	Short   sarifText         `json:"shortDescription"`
	Full    sarifText         `json:"fullDescription"`
	HelpURI string            `json:"helpUri"`
	Default map[string]string `json:"defaultConfiguration"`
}

type sarifText struct {
	Text string `json:"text"`
}

type sarifResult struct {
	RuleID     string             `json:"ruleId"`
	RuleIndex  int                `json:"ruleIndex"`
	Level      string             `json:"level"`
	Message    sarifText          `json:"message"`
	Locations  []sarifLocation    `json:"locations"`
	Suppressed []sarifSuppression `json:"suppressions,omitempty"`
}

// sarifSuppression is an entry of an ignore file.
type sarifSuppression struct {
	Kind          string `json:"kind"` // external: not in the text of the profile
	Justification string `json:"justification"`
}

type sarifLocation struct {
	Physical sarifPhysical `json:"physicalLocation"`
}

type sarifPhysical struct {
	Artifact struct {
		URI string `json:"uri"`
	} `json:"artifactLocation"`
	Region *sarifRegion `json:"region,omitempty"`
}

type sarifRegion struct {
	Line   int `json:"startLine"`
	Column int `json:"startColumn"`
}

const sarifSchema = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

// ruleOpen is the rule of a route that is not closed.
const ruleOpen = "open"

func sarifRules() []sarifRule {
	rules := []sarifRule{newSARIFRule(ruleOpen, verify.Error, "A route or a call that was asked about is not closed",
		"The compiled filter lets the call through for the registers shown, or it could not be proved that it does not.",
		"docs/verify.md#what-is-answered")}
	for _, c := range slices.Concat(verify.Checks(), manifestChecks()) {
		rules = append(rules, newSARIFRule(c.ID, c.Level, c.Title, c.Why, "docs/findings.md#"+c.ID))
	}
	return rules
}

// homePage is where the program and its documents are.
const homePage = "https://github.com/afalg-policy/afalg-policy"

func newSARIFRule(id string, level verify.Level, title, why, document string) sarifRule {
	return sarifRule{id, sarifText{title + "."}, sarifText{why}, homePage + "/blob/main/" + document, map[string]string{"level": string(level)}}
}

// SARIF is the report for CI systems, as a tool of that build made it.
func (r *Filters) SARIF(tool Build) ([]byte, error) {
	rules := sarifRules()
	results := []sarifResult{}
	add := func(rule string, level verify.Level, file string, line, column int, text, ignored string) {
		index := slices.IndexFunc(rules, func(s sarifRule) bool { return s.ID == rule })
		at := sarifLocation{}
		at.Physical.Artifact.URI = (&url.URL{Path: filepath.ToSlash(file)}).String()
		if line > 0 {
			at.Physical.Region = &sarifRegion{line, column}
		}
		result := sarifResult{RuleID: rule, RuleIndex: index, Level: string(level), Message: sarifText{text}, Locations: []sarifLocation{at}}
		if ignored != "" {
			result.Suppressed = []sarifSuppression{{"external", ignored}}
		}
		results = append(results, result)
	}
	for _, line := range r.rows() {
		if line.verdict == Closed || line.ofContainers { // the containers say it
			continue
		}
		at := 0 // a program has no lines
		if slices.Contains(verify.Kinds(), verify.Kind(line.kind)) {
			at = 1
		}
		add(ruleOpen, verify.Error, cmp.Or(line.file, line.name), at, at, fmt.Sprintf("%s by %s on %s is %s (%s, %s): %s",
			line.about, line.call, line.abi, line.verdict, line.machine, line.runtime, line.detail), line.ignored)
	}
	for _, c := range r.Containers {
		if c.Verdict == Open || c.Verdict == Undecided {
			add(c.Rule, c.level(), c.File, c.Line, c.Column, c.Text(), c.Ignored)
		}
	}
	for _, f := range r.Findings {
		add(f.Rule, f.Level, f.File, f.Line, f.Column, f.Message+"; "+f.Fix, f.Ignored)
	}
	invocation := sarifInvocation{Successful: len(r.Broken) == 0}
	for _, b := range r.Broken {
		invocation.Notifications = append(invocation.Notifications, sarifNotification{"error", sarifText{b.Error}})
	}
	log := sarifLog{sarifSchema, "2.1.0", []sarifRun{{
		sarifTool{sarifDriver{"afalg-policy", tool.String(), homePage, rules}}, "unicodeCodePoints", []sarifInvocation{invocation}, results,
	}}}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(log)
	return text.Bytes(), err
}
