// `go run client.go socks|http PORT`: asks for each URL, one in Base64 on each line of its input.
package main

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"time"
)

func main() {
	scheme := map[string]string{"socks": "socks5h", "http": "http"}[os.Args[1]]
	through := &url.URL{Scheme: scheme, Host: "127.0.0.1:" + os.Args[2]}
	client := &http.Client{
		Timeout:       3 * time.Second,
		Transport:     &http.Transport{Proxy: http.ProxyURL(through), DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		text, _ := base64.StdEncoding.DecodeString(lines.Text())
		response, err := client.Get(string(text))
		if err != nil {
			fmt.Println("error")
			continue
		}
		response.Body.Close()
		fmt.Println("ok")
	}
}
