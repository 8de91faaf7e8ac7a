package telemetry

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// NRI counts and times what a plugin of the container runtime answers.
type NRI struct {
	connected prometheus.Gauge
	unproved  prometheus.Gauge
	answers   map[string]prometheus.Counter
	durations prometheus.Histogram
}

// NRI adds the metrics of a plugin, whose answers are called by these words.
func (m *Metrics) NRI(verdicts []string) *NRI {
	answers := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "afalg_policy_nri_containers_total",
		Help: "Containers that the runtime asked about, by what became of them: late if their profile was not proved in time, and they were refused for it.",
	}, []string{"verdict"})
	n := &NRI{
		connected: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "afalg_policy_nri_connected",
			Help: "Whether the container runtime asks this plugin about containers: 1 if it does.",
		}),
		unproved: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "afalg_policy_nri_unproved_containers",
			Help: "Containers that ran when the plugin was connected, and had not been given their profile by it.",
		}),
		answers: map[string]prometheus.Counter{},
		durations: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "afalg_policy_nri_duration_seconds",
			Help:    "How long the runtime waited for an answer about a container.",
			Buckets: buckets,
		}),
	}
	for _, v := range append([]string{other}, verdicts...) {
		n.answers[v] = answers.WithLabelValues(v)
	}
	m.registry.MustRegister(n.connected, n.unproved, answers, n.durations)
	return n
}

// Connected sets whether the runtime asks.
func (n *NRI) Connected(yes bool) {
	v := 0.0
	if yes {
		v = 1
	}
	n.connected.Set(v)
}

// Unproved tells how many containers run that the plugin never saw.
func (n *NRI) Unproved(containers int) { n.unproved.Set(float64(containers)) }

// Answered counts a container.
func (n *NRI) Answered(verdict string, took time.Duration) {
	c, known := n.answers[verdict]
	if !known {
		c = n.answers[other]
	}
	c.Inc()
	n.durations.Observe(took.Seconds())
}
