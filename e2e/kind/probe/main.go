// Command probe is a client for pods whose image holds nothing else: `probe URL` prints the body of the answer and
// fails unless it is a 200.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"
)

func main() {
	client := http.Client{Timeout: 5 * time.Second}
	answer, err := client.Get(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", body)
	if answer.StatusCode != http.StatusOK {
		log.Fatal(answer.Status)
	}
}
