// Command pulumi-resource-kubernetes serves the published Kubernetes provider.
//
// The provider's own main embeds two generated files that its module does not carry. The
// build step copies both from the module (git-ignored here) and sets the version in the schema.
package main

import (
	_ "embed"

	"github.com/pulumi/pulumi-kubernetes/provider/v4/pkg/provider"
	"github.com/pulumi/pulumi-kubernetes/provider/v4/pkg/version"
)

//go:embed schema.json
var schema []byte

//go:embed terraform-mapping.json
var terraformMapping []byte

func main() {
	provider.Serve("kubernetes", version.Version, schema, terraformMapping)
}
