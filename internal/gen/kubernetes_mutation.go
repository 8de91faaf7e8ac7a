package gen

// mutatingPolicy gives a profile to those that choose none, or RuntimeDefault: to
// the pod, and to containers that choose for themselves.
func (a *admission) mutatingPolicy() admissionObject {
	given, chosen := "{type: \"Localhost\", localhostProfile: variables.default}", "['none', 'RuntimeDefault']"
	if a.accepts(gapRuntimeDefault) {
		given, chosen = "{type: \"RuntimeDefault\"}", "['none']"
	}
	variables := append([]namedExpression{{"default", quoted(a.defaultProfile())}}, lists()...)
	variables = append(variables, namedExpression{"given", chosen})
	spec := admissionSpec{
		FailurePolicy: "Fail", ReinvocationPolicy: "IfNeeded",
		MatchConstraints: pods(), MatchConditions: conditions(), Variables: variables,
		Mutations: []mutation{{
			PatchType: "ApplyConfiguration",
			ApplyConfiguration: &expression{"!variables.debug && object.spec.?securityContext.?seccompProfile.?type.orValue('none') in variables.given\n" +
				"? Object{spec: Object.spec{securityContext: Object.spec.securityContext{\n" +
				"    seccompProfile: Object.spec.securityContext.seccompProfile" + given + "}}}\n: Object{}"},
		}},
	}
	for _, list := range containerLists {
		spec.Mutations = append(spec.Mutations, mutation{PatchType: "JSONPatch", JSONPatch: &expression{containerPatch(list, given)}})
	}
	return object("MutatingAdmissionPolicy", spec)
}

// containerPatch replaces the profile of the containers of a list. One that chooses
// none has the pod's; a pod that is there already keeps its own, so that a debugging
// container needs one there.
func containerPatch(list, given string) string {
	of := "object.spec." + list
	profile := "Object.spec." + list + ".securityContext.seccompProfile" + given
	return "variables." + list + ".filter(c,\n" +
		"    (variables.debug ? c.?securityContext.?seccompProfile.or(variables.pod).?type.orValue('none')\n" +
		"      : c.?securityContext.?seccompProfile.?type.orValue('chosen by the pod')) in variables.given)\n" +
		".map(c, " + of + ".indexOf(c))\n" +
		".map(i, has(" + of + "[i].securityContext)\n" +
		"  ? JSONPatch{op: \"add\", path: \"/spec/" + list + "/\" + string(i) + \"/securityContext/seccompProfile\",\n" +
		"      value: " + profile + "}\n" +
		"  : JSONPatch{op: \"add\", path: \"/spec/" + list + "/\" + string(i) + \"/securityContext\",\n" +
		"      value: Object.spec." + list + ".securityContext{seccompProfile: " + profile + "}})"
}
