// Command etcd is the etcd server: its own main package cannot be built as a dependency, this one can.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
