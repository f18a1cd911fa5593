package api

// ClusterInformation describes the cluster. There is one, named default.
type ClusterInformation struct {
	Meta `json:",inline"`
	Spec ClusterInformationSpec `json:"spec"`
}

// ClusterInformationSpec holds the facts.
type ClusterInformationSpec struct {
	ClusterGUID    string `json:"clusterGUID,omitempty"`
	ClusterType    string `json:"clusterType,omitempty"`
	CalicoVersion  string `json:"calicoVersion,omitempty"`
	DatastoreReady *bool  `json:"datastoreReady,omitempty"`
	Variant        string `json:"variant,omitempty"`
}

// KindClusterInformation describes ClusterInformation.
var KindClusterInformation = register(&Kind{
	Name:   "ClusterInformation",
	Plural: "clusterinformations",
	Short:  []string{"clusterinfo", "clusterinfos"},
	New:    func() Object { return &ClusterInformation{Meta: typed("ClusterInformation")} },
	Columns: []Column{
		nameColumn(),
		column("CLUSTERGUID", func(o *ClusterInformation) string { return o.Spec.ClusterGUID }),
		column("CLUSTERTYPE", func(o *ClusterInformation) string { return o.Spec.ClusterType }),
		column("CALICOVERSION", func(o *ClusterInformation) string { return o.Spec.CalicoVersion }),
		column("DATASTOREREADY", func(o *ClusterInformation) string {
			return yesNo(o.Spec.DatastoreReady != nil && *o.Spec.DatastoreReady)
		}),
	},
})

// Default fills in what the user left out.
func (o *ClusterInformation) Default() {}

// Validate says what is wrong with o.
func (o *ClusterInformation) Validate() error {
	p := &problems{}
	p.meta(KindClusterInformation, &o.Meta, onlyName("default"))
	return p.err()
}
